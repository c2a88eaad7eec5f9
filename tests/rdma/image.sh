#!/bin/sh
# Makes the first file system of a guest that has a Soft-RoCE adapter: image.sh KERNEL IMAGE PROGRAM
# KERNEL: a Debian kernel package, unpacked (boot/, lib/modules/). IMAGE: the file to make. PROGRAM: what the guest runs.
# Needs busybox-static, iproute2, dapl2-utils, libdapl2, ibverbs-providers, binutils (strings).
set -eu
kernel=$1 image=$2 program=$3
guest=$(mktemp -d)
trap 'rm -rf "$guest"' EXIT
modules=$(echo "$kernel"/lib/modules/*/kernel)
mkdir -p "$guest/bin" "$guest/proc" "$guest/sys" "$guest/dev" "$guest/tmp" "$guest/run" "$guest/etc/libibverbs.d" "$guest/modules"

# A module after those that it needs.
order=
add() {
    file=$(find "$modules" -name "$1.ko" -o -name "$(echo "$1" | tr _ -).ko" | head -n 1)
    case " $order " in *" $1 "*) return ;; esac
    [ -n "$file" ] || return 0 # built in
    for needed in $(strings -a "$file" | sed -n 's/^depends=//p' | tr ',' ' '); do add "$needed"; done
    file=$(find "$modules" -name "$1.ko" -o -name "$(echo "$1" | tr _ -).ko" | head -n 1)
    case " $order " in *" $1 "*) return ;; esac
    cp "$file" "$guest/modules/$1.ko"
    order="$order $1"
}
for module in crc32_generic crc32c_generic crct10dif_generic dummy rdma_rxe ib_uverbs rdma_ucm; do add "$module"; done

# A program or library with the libraries that it needs.
put() {
    for file in "$1" $(ldd "$1" | sed -n 's/.* => \(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) .*/\1/p'); do
        [ -e "$guest$file" ] && continue
        mkdir -p "$guest$(dirname "$file")"
        cp -L "$file" "$guest$file"
    done
}
libraries=/usr/lib/x86_64-linux-gnu
for file in "$(command -v rdma)" "$(command -v ip)" "$(command -v dtest)" "$libraries/libdaplofa.so.2" "$libraries/libdat2.so.2" \
    "$libraries"/libibverbs/librxe-rdmav*.so; do
    put "$file"
done
put "$program"
cp -L "$program" "$guest/program"
cp -L "$(command -v busybox)" "$guest/bin/busybox"
echo "driver rxe" >"$guest/etc/libibverbs.d/rxe.driver"
echo 'ofa-v2-roe u2.0 nonthreadsafe default libdaplofa.so.2 dapl.2.0 "eth9 0" ""' >"$guest/etc/dat.conf"

cat >"$guest/init" <<END
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin DAT_OVERRIDE=/etc/dat.conf
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs tmp /dev/shm
mount -t tmpfs tmp /tmp
for module in $order; do insmod /modules/\$module.ko; done
ulimit -l unlimited
ip link set lo up
ip link add eth9 type dummy
ip addr add 10.9.0.1/24 dev eth9
ip link set eth9 up
rdma link add rxe0 type rxe netdev eth9 && rdma link
dtest -P ofa-v2-roe -b 4096 -B 2 >/tmp/server 2>&1 &
while ! netstat -ltn | grep -q 15828; do sleep 1; done
timeout 100 dtest -P ofa-v2-roe -h 10.9.0.1 -b 4096 -B 2 >/tmp/client 2>&1
echo "GUEST dtest \$?"
tail -n 3 /tmp/server /tmp/client
timeout 200 /program guest --exact --nocapture --include-ignored 2>&1
echo "GUEST windows \$?"
poweroff -f
END
chmod +x "$guest/init"
(cd "$guest" && find . | busybox cpio -o -H newc 2>/dev/null) | gzip -1 >"$image"
