//! The conformance checks of ve-memory.md section 13, each in both columns of section 11. The processes of the node live here
//! under invented pids: one that is dropped was killed (7, 8, 16); for 17 the kernel is asked what a child would get.
#![cfg(not(miri))]

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use support::{M2, M64, Node, SMALL, UID, errno, memory, open_area, read};
use windlass_ve::{
    Attached, Errno, ErrnoProfile, Exception, FaultKind, Handle, Mode, PCIRCVSYC, PageMode,
    PageSize, Profile, Request, SMALL_BAR0_BYTES, SYSTEM_CALL_PAGE, Vehva, Vemva,
};

const RO: Mode = Mode::PCI.with(Mode::READ_ONLY);

/// Every check is a test in each column, also where its answers are the same in both.
macro_rules! in_both_columns {
    ($($check:ident,)*) => {
        mod implemented {
            $(#[test]
            fn $check() {
                super::$check(windlass_ve::ErrnoProfile::Implemented);
            })*
        }
        mod documented {
            $(#[test]
            fn $check() {
                super::$check(windlass_ve::ErrnoProfile::Documented);
            })*
        }
    };
}

in_both_columns! {
    check_1_open_and_close_count,
    check_2_illegal_open_flags,
    check_3_read_only_areas,
    check_4_which_target_is_possible,
    check_5_attachments_count,
    checks_6_and_8_owner_closes_while_attached,
    checks_7_and_8_owner_is_killed_while_attached,
    check_9_another_user_is_refused_root_too,
    check_10_exact_ranges_and_alignment,
    check_11_registration_of_own_memory,
    check_11_segments_are_limited_by_directories,
    check_12_a_full_ring,
    check_13_unmapped_sources,
    check_14_host_segments,
    check_15_shmget_rules,
    check_16_a_stopped_ve_takes_its_attachers_along,
    check_18_page_modes,
    a_renewed_area_is_attached_at_a_new_address,
    detaching_a_remote_area_as_local_keeps_its_reference,
    large_windows_of_ve3_take_slots_by_four,
    a_small_window_has_small_slots,
    swappable_areas_are_opened_and_closed_twice,
    freed_memory_comes_back_empty,
    host_processes_transfer_by_veo,
    registers_can_be_loaded_but_not_stored,
    words_of_every_width,
    attach_can_be_called_with_every_flag_combination,
    check_17_attachments_are_not_for_children,
    fixed_pages_are_where_they_are,
    descriptors_are_driven_by_stores,
    the_librarys_ring_can_be_looked_at,
    users_have_files_of_their_own,
}

fn small(errno: ErrnoProfile) -> Profile {
    Profile { errno, ..SMALL }
}

// Section 11: the answers that depend on the column.

fn no_area(node: &Node) -> Errno {
    node.column(Errno::Einval, Errno::Enoent)
}

fn no_process(node: &Node) -> Errno {
    node.column(Errno::Einval, Errno::Esrch)
}

fn no_attachment(node: &Node) -> Errno {
    node.column(Errno::Einval, Errno::Ecanceled)
}

fn not_mapped(node: &Node) -> Errno {
    node.column(Errno::Einval, Errno::Efault)
}

fn check_1_open_and_close_count(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let owner = node.process(10, 0);
    let area = memory(&owner, 1);
    for _ in 0..2 {
        owner
            .veshm_open(area.vemva, M64, 0, Mode::PCI)
            .expect("open");
    }
    for _ in 0..2 {
        owner
            .veshm_close(area.vemva, M64, 0, Mode::PCI)
            .expect("close");
    }
    assert_eq!(
        errno(owner.veshm_close(area.vemva, M64, 0, Mode::PCI)),
        Errno::Einval
    );
    owner.free(area.vemva).expect("free");
    node.assert_empty();
}

fn check_2_illegal_open_flags(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let owner = node.process(10, 0);
    let area = memory(&owner, 1);
    for raw in [
        0x1004,
        0x0,
        0x1002,
        0x8,
        1 << 40,
        i64::MIN,
        0x14,
        0x1020,
        0x2004,
    ] {
        assert_eq!(
            errno(owner.veshm_open(area.vemva, M64, 0, Mode::new(raw))),
            Errno::Einval,
            "{raw:#x}"
        );
    }
    let sync = Mode::PCI.with(Mode::PCISYNC);
    assert_eq!(
        errno(owner.veshm_open(area.vemva, M64, 4, sync)),
        Errno::Einval
    );
    assert_eq!(
        errno(owner.veshm_open(area.vemva, M64, -1, sync)),
        Errno::Einval
    );
    owner.veshm_open(area.vemva, M64, 3, sync).expect("pair 3");
    assert_eq!(
        errno(owner.veshm_close(area.vemva, M64, 2, sync)),
        Errno::Einval,
        "the pair is identity"
    );
}

fn check_3_read_only_areas(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let (owner, user) = (node.process(10, 0), node.process(11, 1));
    let area = memory(&owner, 1);
    owner.veshm_open(area.vemva, M64, 0, RO).expect("open");
    assert_eq!(
        errno(user.attach_vehva(10, area.vemva, M64, Mode::PCI)),
        no_area(&node)
    );
    let remote = user.attach_vehva(10, area.vemva, M64, RO).expect("attach");
    let own = memory(&user, 1);
    let local = user.register(own.vemva, M64).expect("register");
    assert_eq!(user.dma().post_wait(remote, local, 8).bits(), 0x8000);
    assert_eq!(user.dma().post_wait(local, remote, 8).bits(), 0);
    let fault = user.shm(remote, &[1; 4]).expect_err("read-only");
    assert_eq!(
        (fault.kind, fault.at),
        (FaultKind::MemoryProtection, remote)
    );
    assert_eq!(fault.kind.signal(), ("SIGSEGV", "SEGV_ACCERR"));
    user.lhm(remote, &mut [0; 4]).expect("load");
}

fn check_4_which_target_is_possible(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let [owner, near, far] = node.three();
    let area = open_area(&owner, 1);
    owner
        .veshm_open(area.vemva, M64, 0, Mode::NONE)
        .expect("open");
    assert_eq!(
        errno(near.attach_vehva(10, area.vemva, M64, Mode::PCI)),
        Errno::Einval
    );
    assert_eq!(
        errno(far.attach_vemva(10, area.vemva, M64, Mode::PCI)),
        Errno::Einval
    );
    assert_eq!(
        errno(far.attach_vehva(10, area.vemva, M64, Mode::NONE)),
        Errno::Einval
    );
    assert_eq!(
        errno(owner.attach_vemva(10, area.vemva, M64, Mode::PCI)),
        Errno::Einval
    );
    assert_eq!(
        errno(owner.attach_vehva(10, area.vemva, M64, Mode::PCI)),
        Errno::Einval
    );
    let local = near.veshm_attach(10, area.vemva, M64, 0, Mode::MEM_LOCAL);
    assert_eq!(errno(local), Errno::Einval, "MEM_LOCAL is for own memory");
    near.attach_vemva(10, area.vemva, M64, Mode::PCI)
        .expect("same VE, PCI");
    near.attach_vemva(10, area.vemva, M64, Mode::NONE)
        .expect("same VE, NONE");
    far.attach_vehva(10, area.vemva, M64, Mode::PCI)
        .expect("other VE");
}

fn check_5_attachments_count(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let [owner, near, far] = node.three();
    let area = open_area(&owner, 2);
    let first = near
        .attach_vemva(10, area.vemva, 2 * M64, Mode::PCI)
        .expect("attach");
    let again = near
        .attach_vemva(10, area.vemva, 2 * M64, Mode::PCI)
        .expect("attach");
    assert_eq!(first.vemva, again.vemva);
    first.bytes.write(5, b"both").expect("write");
    assert_eq!(&read::<4>(&area.bytes, 5), b"both");
    let inside = first.vemva.checked_add(M64).expect("address");
    assert_eq!(
        errno(near.detach_vemva(inside)),
        no_attachment(&node),
        "an interior address"
    );
    near.detach_vemva(first.vemva).expect("detach");
    near.detach_vemva(first.vemva).expect("detach");
    assert_eq!(errno(near.detach_vemva(first.vemva)), no_attachment(&node));

    let first = far
        .attach_vehva(10, area.vemva, 2 * M64, Mode::PCI)
        .expect("attach");
    assert_eq!(first, Vehva::new(0x0700_0000_0000));
    assert_eq!(
        far.attach_vehva(10, area.vemva, 2 * M64, Mode::PCI).ok(),
        Some(first)
    );
    far.detach_vehva(first).expect("detach");
    far.lhm(first, &mut [0; 8]).expect("still attached");
    far.detach_vehva(first).expect("detach");
    assert_eq!(
        far.lhm(first, &mut [0; 8]).expect_err("gone").kind,
        FaultKind::MissingSpace
    );
    assert_eq!(errno(far.detach_vehva(first)), no_attachment(&node));
    far.veshm_detach(u64::MAX, Mode::VEHVA)
        .expect("all ones: nothing done");
    for mode in [
        Mode::default(),
        Mode::VEHVA.with(Mode::VEMVA),
        Mode::VEHVA.with(Mode::PCI),
        Mode::PCI,
    ] {
        assert_eq!(errno(far.veshm_detach(u64::MAX, mode)), Errno::Einval);
    }
}

fn checks_6_and_8_owner_closes_while_attached(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let (owner, far, third) = (
        node.process(10, 0),
        node.process(11, 1),
        node.process(12, 1),
    );
    let area = memory(&owner, 15);
    let size = 15 * M64;
    owner
        .veshm_open(area.vemva, size, 0, Mode::PCI)
        .expect("all slots");
    area.bytes.write(0, b"survives").expect("write");
    let remote = far
        .attach_vehva(10, area.vemva, size, Mode::PCI)
        .expect("attach");
    owner
        .veshm_close(area.vemva, size, 0, Mode::PCI)
        .expect("close");
    owner.free(area.vemva).expect("free");
    drop(area);
    let mut seen = [0; 8];
    far.lhm(remote, &mut seen).expect("load");
    assert_eq!(&seen, b"survives");
    assert_eq!(
        errno(third.attach_vehva(10, Vemva::new(M64), size, Mode::PCI)),
        no_area(&node)
    );
    let other = memory(&owner, 1);
    let full = owner.veshm_open(other.vemva, M64, 0, Mode::PCI);
    assert_eq!(
        errno(full),
        Errno::Enomem,
        "the closed area keeps its slots"
    );
    owner
        .veshm_open(other.vemva, M64, 0, Mode::NONE)
        .expect("no slot needed");
    far.detach_vehva(remote).expect("detach");
    owner
        .veshm_open(other.vemva, M64, 0, Mode::PCI)
        .expect("slots are back");
    drop((owner, far, third));
    node.assert_empty();
}

fn checks_7_and_8_owner_is_killed_while_attached(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let [owner, near, far] = node.three();
    let area = open_area(&owner, 1);
    let mapped = near
        .attach_vemva(10, area.vemva, M64, Mode::PCI)
        .expect("attach");
    let remote = far
        .attach_vehva(10, area.vemva, M64, Mode::PCI)
        .expect("attach");
    let vemva = area.vemva;
    area.bytes.write(8, b"heritage").expect("write");
    drop((owner, area));
    assert_eq!(&read::<8>(&mapped.bytes, 8), b"heritage");
    let mut seen = [0; 8];
    far.lhm(remote.checked_add(8).expect("address"), &mut seen)
        .expect("load");
    assert_eq!(&seen, b"heritage");
    far.shm(remote, b"still ok").expect("store");
    assert_eq!(&read::<8>(&mapped.bytes, 0), b"still ok");
    assert_eq!(
        errno(far.attach_vehva(10, vemva, M64, Mode::PCI)),
        Errno::Esrch
    );
    assert_eq!(
        errno(near.attach_vemva(10, vemva, M64, Mode::PCI)),
        no_process(&node)
    );
    // The pid lives on in another process: it owns nothing of the old one.
    let reused = node.process(10, 0);
    assert_eq!(
        errno(far.attach_vehva(10, vemva, M64, Mode::PCI)),
        no_area(&node)
    );
    drop((near, reused));
    let (free, slots, _) = node.service().free_resources(0).expect("VE 0");
    assert_eq!(
        (free, slots),
        (SMALL.memory_bytes - M64, 14),
        "the last attacher holds frame and slot"
    );
    drop(far);
    node.assert_empty();
}

fn check_9_another_user_is_refused_root_too(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let owner = node.process(10, 0);
    let area = open_area(&owner, 1);
    for (pid, uid) in [(11, UID + 1), (12, 0)] {
        let far = node.process_of(pid, Some(1), uid);
        assert_eq!(
            errno(far.attach_vehva(10, area.vemva, M64, Mode::PCI)),
            Errno::Eacces
        );
        let near = node.process_of(pid + 100, Some(0), uid);
        assert_eq!(
            errno(near.attach_vemva(10, area.vemva, M64, Mode::PCI)),
            Errno::Eacces
        );
        let host = node.process_of(pid + 200, None, uid);
        assert_eq!(errno(host.veo_attach(10, area.vemva, 8)), Errno::Eacces);
    }
}

fn check_10_exact_ranges_and_alignment(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let (owner, far) = (node.process(10, 0), node.process(11, 1));
    let area = memory(&owner, 3);
    let second = area.vemva.checked_add(M64).expect("address");
    owner.veshm_open(second, M64, 0, Mode::PCI).expect("open");
    assert_eq!(
        errno(far.attach_vehva(10, area.vemva, M64, Mode::PCI)),
        no_area(&node)
    );
    assert_eq!(
        errno(far.attach_vehva(10, second, 2 * M64, Mode::PCI)),
        no_area(&node)
    );
    assert_eq!(
        errno(far.attach_vehva(10, second, 0, Mode::PCI)),
        no_area(&node)
    );
    let odd = area.vemva.checked_add(M2).expect("address");
    assert_eq!(
        errno(owner.veshm_open(odd, M64, 0, Mode::PCI)),
        Errno::Einval
    );
    assert_eq!(
        errno(owner.veshm_open(area.vemva, M2, 0, Mode::PCI)),
        Errno::Einval
    );
    assert_eq!(
        errno(owner.veshm_open(area.vemva, 4 * M64, 0, Mode::PCI)),
        node.column(Errno::Enomem, Errno::Einval),
        "beyond the mapping"
    );
    assert_eq!(
        errno(owner.veshm_open(Vemva::new(0), M64, 0, Mode::PCI)),
        Errno::Einval
    );
    assert_eq!(
        errno(owner.veshm_open(area.vemva, 0, 0, Mode::PCI)),
        Errno::Einval
    );
    // Small pages cannot be in a PCIATB of large ones, but can be shared on the VE.
    let small = owner.alloc(M2 as usize, PageSize::M2).expect("VE memory");
    assert_eq!(
        errno(owner.veshm_open(small.vemva, M2, 0, Mode::PCI)),
        Errno::Einval
    );
    owner
        .veshm_open(small.vemva, M2, 0, Mode::NONE)
        .expect("NONE");
    let near = node.process(12, 0);
    let mapped = near
        .attach_vemva(10, small.vemva, M2, Mode::NONE)
        .expect("attach");
    assert_eq!((mapped.page, mapped.bytes.len() as u64), (PageSize::M2, M2));
}

fn check_11_registration_of_own_memory(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let process = node.process(10, 0);
    let own = memory(&process, 2);
    let first = process.register(own.vemva, 2 * M64).expect("register");
    assert_eq!(process.register(own.vemva, 2 * M64).ok(), Some(first));
    let part = process.register(own.vemva, M64).expect("another range");
    assert_ne!(part, first);
    assert_eq!(errno(process.register(own.vemva, M2)), Errno::Einval);
    assert_eq!(errno(process.register(own.vemva, 0)), Errno::Enomem);
    assert_eq!(errno(process.register(own.vemva, 3 * M64)), Errno::Enomem);
    let none = process.veshm_attach(10, own.vemva, M64, 0, Mode::MEM_LOCAL.with(Mode::PCI));
    assert_eq!(errno(none), Errno::Einval);
    process.shm(first, &7_u64.to_le_bytes()).expect("store");
    assert_eq!(read::<8>(&own.bytes, 0), 7_u64.to_le_bytes());
    // Frames that are registered stay when the memory is freed, and the old VEHVA still leads to them.
    process.free(own.vemva).expect("free");
    let mut seen = [0; 8];
    process.lhm(first, &mut seen).expect("load");
    assert_eq!(seen, 7_u64.to_le_bytes());
    for vehva in [first, first, part] {
        process.unregister(vehva).expect("unregister");
    }
    node.assert_empty();
}

fn check_11_segments_are_limited_by_directories(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let id = node.service().join(10, 1, UID, Some(0)).expect("join");
    let segment = Request::SegmentAttach {
        shmid: 7,
        len: 512 << 20,
        writable: true,
        huge: true,
    };
    for _ in 0..56 {
        node.service()
            .handle(id, segment.clone())
            .expect("directory");
    }
    assert_eq!(
        node.service().handle(id, segment).err(),
        Some(Errno::Enomem)
    );
    node.service().leave(id);
    node.assert_empty();
}

fn check_12_a_full_ring(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let process = node.process(10, 0);
    let own = memory(&process, 1);
    let from = process.register(own.vemva, M64).expect("register");
    let to = from.checked_add(8).expect("address");
    let dma = process.dma();
    let handles: Vec<Handle> = (0..129).map(|_| Handle::new()).collect();
    dma.hold();
    for handle in &handles[..128] {
        dma.post(to, from, 8, handle).expect("room");
    }
    assert!(dma.post(to, from, 8, &handles[128]).is_err(), "-EAGAIN");
    assert!(dma.step(), "one completes");
    assert_eq!(handles[0].stored(), None);
    dma.post(to, from, 8, &handles[128]).expect("its place");
    assert_eq!(handles[0].stored(), Some(Exception::NONE));
    dma.resume();
    for handle in &handles {
        assert_eq!(dma.wait(handle).ok(), Some(Exception::NONE));
    }
}

fn check_13_unmapped_sources(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let process = node.process(10, 0);
    let own = memory(&process, 1);
    let local = process.register(own.vemva, M64).expect("register");
    let next = local.checked_add(M64).expect("address");
    assert_eq!(process.dma().post_wait(local, next, 8).bits(), 0x4000);
    assert_eq!(
        process
            .dma()
            .post_wait(local, Vehva::new(0x0088_0000_0000), 8)
            .bits(),
        0x2000
    );
    assert_eq!(
        process
            .dma()
            .post_wait(local, Vehva::new(own.vemva.raw()), 8)
            .bits(),
        0x2000,
        "a VEMVA"
    );
}

/// Huge pages for the time of a test where this user may have some made; the number before is set again afterwards. One test at
/// a time, so that none loses those of another.
struct HugePages {
    before: Option<String>,
    _alone: MutexGuard<'static, ()>,
}

const HUGE: &str = "/proc/sys/vm/nr_hugepages";

impl HugePages {
    fn raise() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::fs::read_to_string(HUGE).unwrap_or_default();
        let enough = before.trim().parse().is_ok_and(|count: u64| count >= 8);
        let raised = !enough && std::fs::write(HUGE, "8").is_ok();
        let before = raised.then_some(before);
        Self { before, _alone }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Best effort: the machine's owner sees the number.
            let _ = std::fs::write(HUGE, before);
        }
    }
}

fn check_14_host_segments(column: ErrnoProfile) {
    let _pages = HugePages::raise();
    let node = Node::new(small(column));
    let process = node.process(10, 0);
    let (shmid, small) = windlass_mem::sysv::create(M2 as usize, false).expect("segment");
    assert_eq!(errno(process.vh_shmat(shmid, 0)), Errno::Efault);
    assert_eq!(errno(process.vh_shmat(shmid, 0x4000)), Errno::Einval);
    assert_eq!(errno(process.vh_shmat(-5, 0)), Errno::Einval);
    assert_eq!(
        errno(process.vh_shmdt(small.addr())),
        Errno::Einval,
        "not an address of vh_shmat"
    );
    let Ok((shmid, huge)) = windlass_mem::sysv::create(2 * M2 as usize, true) else {
        eprintln!("no huge pages here (vm.nr_hugepages): the rest of check 14 is left out");
        return;
    };
    let first = process.vh_shmat(shmid, 0).expect("attach");
    let second = process.vh_shmat(shmid, 0x1000).expect("attach read-only");
    assert_eq!(first.vehva, Vehva::new(0x0088_0000_0000));
    assert_ne!((first.address, first.vehva), (second.address, second.vehva));
    process.shm(first.vehva, b"from VE.").expect("store");
    assert_eq!(&read::<8>(&huge, 0), b"from VE.");
    let own = memory(&process, 1);
    let local = process.register(own.vemva, M64).expect("register");
    assert!(process.dma().post_wait(local, second.vehva, 8).is_none());
    assert_eq!(&read::<8>(&own.bytes, 0), b"from VE.");
    assert_eq!(
        process.dma().post_wait(second.vehva, local, 8).bits(),
        0x8000
    );
    process.vh_shmdt(first.address).expect("detach");
    process
        .lhm(second.vehva, &mut [0; 8])
        .expect("each needs its own detach");
    process.vh_shmdt(second.address).expect("detach");
    assert_eq!(errno(process.vh_shmdt(second.address)), Errno::Einval);
    let (shmid, odd) = windlass_mem::sysv::create(M2 as usize + 5000, true).expect("two pages");
    let whole = process.vh_shmat(shmid, 0).expect("attach");
    let tail = whole.vehva.checked_add(2 * M2 - 8).expect("address");
    assert!(
        process.dma().post_wait(tail, local, 8).is_none(),
        "rounded up"
    );
    assert_eq!(&read::<8>(&whole.bytes, 2 * M2 as usize - 8), b"from VE.");
    let beyond = whole.vehva.checked_add(2 * M2).expect("address");
    assert_eq!(process.dma().post_wait(beyond, local, 8).bits(), 0x4000);
    process.vh_shmdt(whole.address).expect("detach");
    drop(odd);
}

fn check_15_shmget_rules(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let process = node.process(10, 0);
    let shmget = |key, flags| errno(process.vh_shmget(key, 1, flags));
    let key = 0x5749_4e44;
    assert_eq!(shmget(0, 0x800), Errno::Einval, "IPC_PRIVATE");
    assert_eq!(shmget(key, 0), Errno::Einval, "without SHM_HUGETLB");
    for flag in [0x200, 0x400, 0x1000] {
        assert_eq!(shmget(key, 0x800 | flag), Errno::Einval, "{flag:#x}");
    }
    assert_eq!(shmget(key, 0x800), Errno::Enoent);
}

fn check_16_a_stopped_ve_takes_its_attachers_along(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let (owner, far, bystander) = (
        node.process(10, 0),
        node.process(11, 1),
        node.process(12, 1),
    );
    let area = open_area(&owner, 1);
    far.attach_vehva(10, area.vemva, M64, Mode::PCI)
        .expect("attach");
    let stopped = node.service().stop_ve(0);
    assert_eq!((stopped.ended, stopped.killed), (vec![10], vec![11]));
    assert_eq!(
        errno(bystander.attach_vehva(10, area.vemva, M64, Mode::PCI)),
        Errno::Esrch
    );
    assert_eq!(
        node.service().join(13, 1, UID, Some(0)),
        Err(Errno::Enotsup)
    );
    drop((owner, far, bystander));
    node.assert_empty();
}

fn check_18_page_modes(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let (near, far) = (node.process(10, 0), node.process(11, 1));
    let own = memory(&near, 1);
    let local = near.register(own.vemva, M64).expect("register");
    let inside = own.vemva.raw() + M64 - 1;
    assert_eq!(far.get_pgmode(PageMode::PCI, 10, 0).ok(), Some(M64));
    assert_eq!(
        errno(far.get_pgmode(PageMode::VEMVA, 10, inside)),
        Errno::Esrch
    );
    assert_eq!(near.get_pgmode(PageMode::VEMVA, 10, inside).ok(), Some(M64));
    assert_eq!(
        errno(near.get_pgmode(PageMode::VEMVA, 10, inside + 1)),
        not_mapped(&node)
    );
    assert_eq!(
        near.get_pgmode(PageMode::VEHVA, 10, local.raw() + 5).ok(),
        Some(M64)
    );
    assert_eq!(
        near.get_pgmode(PageMode::VEHVA, 10, 0x1000).ok(),
        Some(4096)
    );
    assert_eq!(
        errno(near.get_pgmode(PageMode::VEHVA, 10, 0x0088_0000_0000)),
        not_mapped(&node)
    );
    assert_eq!(errno(near.get_pgmode(PageMode::PCI, 99, 0)), Errno::Esrch);
    for mode in [0, 3, 5, 8, -1, 1 << 32] {
        assert_eq!(
            errno(near.get_pgmode(PageMode(mode), 10, inside)),
            Errno::Einval
        );
    }
}

fn a_renewed_area_is_attached_at_a_new_address(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let (owner, far) = (node.process(10, 0), node.process(11, 1));
    let area = open_area(&owner, 1);
    let old = far
        .attach_vehva(10, area.vemva, M64, Mode::PCI)
        .expect("attach");
    owner
        .veshm_close(area.vemva, M64, 0, Mode::PCI)
        .expect("close");
    assert_eq!(
        errno(far.attach_vehva(10, area.vemva, M64, Mode::PCI)),
        no_area(&node),
        "CLOSED"
    );
    owner
        .veshm_open(area.vemva, M64, 0, Mode::PCI)
        .expect("open anew");
    let new = far
        .attach_vehva(10, area.vemva, M64, Mode::PCI)
        .expect("attach");
    assert_ne!(old, new);
    far.shm(old, &[1; 8])
        .expect("the old attachment stays mapped");
    far.detach_vehva(old).expect("and is found by address");
    far.lhm(new, &mut [0; 8]).expect("load");
    drop((owner, far));
    node.assert_empty();
}

fn detaching_a_remote_area_as_local_keeps_its_reference(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let (owner, far) = (node.process(10, 0), node.process(11, 1));
    let area = open_area(&owner, 1);
    let remote = far
        .attach_vehva(10, area.vemva, M64, Mode::PCI)
        .expect("attach");
    far.veshm_detach(remote.raw(), Mode::MEM_LOCAL)
        .expect("wrong mode finds the record");
    owner
        .veshm_close(area.vemva, M64, 0, Mode::PCI)
        .expect("close");
    assert_eq!(
        node.service().free_resources(0).map(|(_, slots, _)| slots),
        Some(14),
        "the quirk of section 5.3"
    );
    drop(far);
    assert_eq!(
        node.service().free_resources(0).map(|(_, slots, _)| slots),
        Some(15)
    );
}

fn large_windows_of_ve3_take_slots_by_four(column: ErrnoProfile) {
    let profile = Profile {
        errno: column,
        memory_bytes: 4 << 30,
        ..Profile::VE3
    };
    let node = Node::new(profile);
    let (owner, far) = (node.process(10, 0), node.process(11, 1));
    let area = memory(&owner, 5);
    let mode = Mode::PCI.with(Mode::MAP_256MB);
    let before = node.service().free_resources(0).expect("VE 0").1;
    owner
        .veshm_open(area.vemva, 5 * M64, 0, mode)
        .expect("open");
    assert_eq!(
        node.service()
            .free_resources(0)
            .map(|(_, slots, _)| before - slots),
        Some(8)
    );
    assert_eq!(
        errno(far.attach_vehva(10, area.vemva, 5 * M64, Mode::PCI)),
        no_area(&node),
        "identity"
    );
    let remote = far
        .attach_vehva(10, area.vemva, 5 * M64, mode)
        .expect("attach");
    assert_eq!(remote, Vehva::new(0x1000_0000_0000));
    assert_eq!(
        far.get_pgmode(PageMode::VEHVA, 11, remote.raw()).ok(),
        Some(256 << 20)
    );
    let last = remote.checked_add(5 * M64 - 8).expect("address");
    far.shm(last, b"last one").expect("store");
    assert_eq!(&read::<8>(&area.bytes, (5 * M64 - 8) as usize), b"last one");
}

fn a_small_window_has_small_slots(column: ErrnoProfile) {
    let profile = Profile {
        errno: column,
        memory_bytes: 4 << 30,
        bar0_bytes: SMALL_BAR0_BYTES,
        ..Profile::VE1
    };
    let node = Node::new(profile);
    let [owner, near, far] = node.three();
    let area = memory(&owner, 1);
    let start = area.vemva.checked_add(M2).expect("address");
    owner
        .veshm_open(start, 2 * M2, 0, Mode::PCI)
        .expect("2 MiB of a 64 MiB page");
    let remote = far
        .attach_vehva(10, start, 2 * M2, Mode::PCI)
        .expect("attach");
    assert_eq!(remote, Vehva::new(0x0088_0000_0000));
    far.shm(remote, &[9; 8]).expect("store");
    assert_eq!(read::<8>(&area.bytes, M2 as usize), [9; 8]);
    owner
        .veshm_open(area.vemva, M64, 0, Mode::PCI)
        .expect("open");
    assert_eq!(
        errno(near.attach_vemva(10, area.vemva, M64, Mode::PCI)),
        Errno::Einval,
        "section 5.2 row 9"
    );
    assert_eq!(far.get_pgmode(PageMode::PCI, 10, 0).ok(), Some(M2));
}

fn swappable_areas_are_opened_and_closed_twice(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let (owner, near) = (node.process(10, 0), node.process(11, 0));
    let area = memory(&owner, 1);
    let mode = Mode::PCI.with(Mode::SWAPPABLE);
    owner
        .veshm_open(area.vemva, M64, 0, Mode::PCI)
        .expect("open");
    assert_eq!(
        errno(owner.veshm_close(area.vemva, M64, 0, mode)),
        Errno::Einval,
        "never opened so"
    );
    owner
        .veshm_close(area.vemva, M64, 0, Mode::PCI)
        .expect("close");
    owner.veshm_open(area.vemva, M64, 0, mode).expect("open");
    near.attach_vemva(10, area.vemva, M64, Mode::NONE)
        .expect("the second open");
    owner.veshm_close(area.vemva, M64, 0, mode).expect("close");
    assert_eq!(
        errno(owner.veshm_close(area.vemva, M64, 0, mode)),
        Errno::Einval
    );
    assert_eq!(
        errno(near.attach_vemva(10, area.vemva, M64, Mode::PCI)),
        no_area(&node)
    );
}

fn freed_memory_comes_back_empty(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let process = node.process(10, 0);
    let pages = SMALL.memory_bytes / M64;
    let first = memory(&process, pages);
    first.bytes.write(12345, b"secret").expect("write");
    assert_eq!(errno(process.alloc(1, PageSize::M2)), Errno::Enomem);
    assert_eq!(errno(process.alloc(1, PageSize::M256)), Errno::Einval);
    let vemva = first.vemva;
    drop(first);
    process.free(vemva).expect("free");
    assert_eq!(errno(process.free(vemva)), Errno::Einval);
    let second = memory(&process, pages);
    assert_eq!(read::<6>(&second.bytes, 12345), [0; 6]);
}

fn host_processes_transfer_by_veo(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let (owner, host) = (node.process(10, 0), node.process_of(20, None, UID));
    let area = memory(&owner, 2);
    let at = area.vemva.checked_add(M64 - 3).expect("address");
    let window = host
        .veo_attach(10, at, 7)
        .expect("across pages, not aligned");
    window.write_mem(0, b"seven b").expect("write");
    assert_eq!(&read::<7>(&area.bytes, (M64 - 3) as usize), b"seven b");
    assert!(window.write_mem(1, b"seven b").is_err(), "refused whole");
    let mut seen = [0; 3];
    window.read_mem(4, &mut seen).expect("read");
    assert_eq!(&seen, b"n b");
    assert_eq!(errno(host.veo_attach(11, at, 7)), Errno::Esrch);
    assert_eq!(
        errno(host.veo_attach(10, at, 3 * M64 as usize)),
        Errno::Efault
    );
    assert_eq!(errno(owner.veo_attach(10, at, 7)), Errno::Enotsup);
    assert_eq!(
        errno(host.alloc(1, PageSize::M64)),
        Errno::Ecanceled,
        "not a VE process"
    );
    drop((owner, area));
    window
        .read_mem(4, &mut seen)
        .expect("the window holds the frames");
    assert_eq!(&seen, b"n b");
    drop(window);
    node.assert_empty();
}

fn registers_can_be_loaded_but_not_stored(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let process = node.process(10, 0);
    let mut word = [1; 8];
    process.lhm(PCIRCVSYC, &mut word).expect("acquire");
    process
        .lhm(Vehva::new(0x3000), &mut word)
        .expect("control word 0");
    assert_eq!(u64::from_le_bytes(word), 1, "permitted to run");
    process.dma().post_wait(Vehva::new(0), Vehva::new(0), 0);
    process
        .lhm(Vehva::new(0x3008), &mut word)
        .expect("control word 1");
    assert_eq!(u64::from_le_bytes(word), 1, "read pointer");
    assert_eq!(
        process.shm(PCIRCVSYC, &word).expect_err("store").kind,
        FaultKind::MemoryProtection
    );
    assert_eq!(
        process
            .lhm(Vehva::new(0x1404), &mut word)
            .expect_err("misaligned")
            .kind,
        FaultKind::MemoryAccess
    );
    assert_eq!(
        process
            .lhm(Vehva::new(0x1400), &mut [0; 3])
            .expect_err("width")
            .kind,
        FaultKind::MemoryAccess
    );
}

/// Section 10: 1, 2, 4 and 8 bytes, and no others, each aligned to itself.
fn words_of_every_width(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let (owner, far) = (node.process(10, 0), node.process(11, 1));
    let area = open_area(&owner, 1);
    let remote = far
        .attach_vehva(10, area.vemva, M64, Mode::PCI)
        .expect("attach");
    for width in 1..=9_usize {
        let word: Vec<u8> = (1..=width as u8).collect();
        for start in 0..16 {
            area.bytes.fill(0, 32, 0xAA).expect("fill");
            let at = remote.checked_add(start).expect("address");
            let legal = matches!(width, 1 | 2 | 4 | 8) && start % width as u64 == 0;
            let mut expected = [0xAA; 32];
            let mut loaded = vec![0; width];
            if legal {
                far.shm(at, &word).expect("store");
                expected[start as usize..][..width].copy_from_slice(&word);
                far.lhm(at, &mut loaded).expect("load");
                assert_eq!(loaded, word);
            } else {
                let refused = [far.shm(at, &word), far.lhm(at, &mut loaded)];
                let kinds = refused.map(|outcome| outcome.map_err(|fault| fault.kind));
                assert_eq!(
                    kinds,
                    [Err(FaultKind::MemoryAccess); 2],
                    "{width} at {start}"
                );
            }
            assert_eq!(read::<32>(&area.bytes, 0), expected, "{width} at {start}");
        }
    }
}

fn attach_can_be_called_with_every_flag_combination(column: ErrnoProfile) {
    // Whatever the mode, the answer is one of the documented ones and nothing leaks.
    let node = Node::new(small(column));
    let [owner, near, far] = node.three();
    let area = open_area(&owner, 1);
    let refusals = [Errno::Einval, no_area(&node)];
    for bits in 0..1 << 10 {
        let flags = [
            0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x1000, 0x2000, 0x4000, 0x8000,
        ];
        let raw = (0..10)
            .filter(|bit| bits >> bit & 1 == 1)
            .map(|bit| flags[bit])
            .sum();
        let mode = Mode::new(raw);
        for process in [&owner, &near, &far] {
            match process.veshm_attach(10, area.vemva, M64, 0, mode) {
                Ok(Attached::Vemva(memory)) => process.detach_vemva(memory.vemva).expect("detach"),
                Ok(Attached::Vehva(vehva)) => process.detach_vehva(vehva).expect("detach"),
                Err(error) => assert!(refusals.contains(&error.errno()), "{raw:#x}: {error}"),
            }
        }
    }
    owner
        .veshm_close(area.vemva, M64, 0, Mode::PCI)
        .expect("close");
    owner.free(area.vemva).expect("free");
    node.assert_empty();
}

fn check_17_attachments_are_not_for_children(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let (owner, near) = (node.process(10, 0), node.process(11, 0));
    let area = open_area(&owner, 1);
    let mapped = near
        .attach_vemva(10, area.vemva, M64, Mode::PCI)
        .expect("attach");
    let is_inherited = |at: Vemva| {
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
        let range = format!("{:x}-", at.raw());
        let entry = smaps.lines().skip_while(|line| !line.starts_with(&range));
        let flags = entry.into_iter().find(|line| line.starts_with("VmFlags:"));
        !flags.expect("flags").contains(" dc")
    };
    assert!(!is_inherited(mapped.vemva), "an access ends the child");
    assert!(is_inherited(area.vemva), "own memory is inherited");
}

fn fixed_pages_are_where_they_are(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let process = node.process(10, 0);
    let fixed = |region| process.get_fixed_vehva(region).map(|at| at.raw());
    for (region, at) in [(0, 0x1000), (1, 0x2000), (4, 0x3010), (5, 0x4000)] {
        assert_eq!(fixed(region).ok(), Some(at), "region {region}");
    }
    for region in [2, 3, 6, u64::MAX] {
        assert_eq!(errno(fixed(region)), Errno::Einval, "region {region}");
    }
    for pair in 0..4 {
        assert_eq!(process.get_pci_sync(pair).ok(), Some((0, 0)));
    }
    assert_eq!(errno(process.get_pci_sync(4)), Errno::Einval);
    let page = |address| process.get_pgmode(PageMode::VEHVA, 10, address);
    assert_eq!(page(0x4FFF).ok(), Some(4096));
    assert_eq!(errno(page(0x5000)), not_mapped(&node), "table H");
    // The page of system-call arguments is host memory.
    process.shm(SYSTEM_CALL_PAGE, b"argument").expect("store");
    let mut seen = [0; 8];
    process.lhm(SYSTEM_CALL_PAGE, &mut seen).expect("load");
    assert_eq!(&seen, b"argument");
    let own = memory(&process, 1);
    let local = process.register(own.vemva, M64).expect("register");
    let copied = process.dma().post_wait(local, SYSTEM_CALL_PAGE, 8);
    assert!(copied.is_none());
    assert_eq!(&read::<8>(&own.bytes, 0), b"argument");
    let word = |at: u64| {
        let mut word = [0xFF; 8];
        let loaded = process.lhm(Vehva::new(at), &mut word);
        loaded.map(|()| u64::from_le_bytes(word))
    };
    assert_eq!(word(0x2FF8), Ok(0), "a register");
    assert_eq!(
        word(0x6000).map_err(|fault| fault.kind),
        Err(FaultKind::MissingPage),
        "a doorbell of nobody"
    );
}

fn descriptors_are_driven_by_stores(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let process = node.process(10, 0);
    let own = memory(&process, 1);
    let local = process.register(own.vemva, M64).expect("register").raw();
    own.bytes.write(0, b"by hand!").expect("write");
    let store = |at: u64, word: u64| process.shm(Vehva::new(at), &word.to_le_bytes());
    let load = |at: u64| {
        let mut word = [0; 8];
        let loaded = process.lhm(Vehva::new(at), &mut word);
        loaded.map(|()| u64::from_le_bytes(word))
    };
    let post = |table: u64, index: u64, dst: u64| {
        let at = table + index * 32;
        store(at + 8, 8 | 8 << 32).expect("length and SYNC");
        store(at + 16, local).expect("source");
        store(at + 24, dst).expect("destination");
        store(at, 1).expect("prepared");
        load(at).expect("status")
    };
    for index in 0..130 {
        assert_eq!(post(0x4000, index % 128, local + 64 + index * 8), 2);
        assert_eq!(load(0x3018), Ok((index + 1) % 128), "read pointer of E");
    }
    assert_eq!(&read::<8>(&own.bytes, 64 + 129 * 8), b"by hand!");
    assert_eq!(post(0x4000, 2, 0x0088_0000_0000), 0x2000 << 48 | 2);
    // Out of turn: nothing happens before the descriptors between are prepared.
    assert_eq!(post(0x4000, 4, local + 4096), 1);
    assert_eq!(post(0x4000, 3, local + 8192), 2);
    assert_eq!(load(0x4000 + 4 * 32), Ok(2));

    // Table H is the program's after ve_map_dmades, and then not the library's.
    let missing = |outcome: Result<u64, windlass_ve::Fault>| outcome.map_err(|f| f.kind);
    assert_eq!(missing(load(0x5000)), Err(FaultKind::MissingPage));
    let (table, control) = process.map_dmades().expect("map");
    assert_eq!((table.raw(), control.raw()), (0x5000, 0x3000));
    assert_eq!(errno(process.map_dmades()), Errno::Ebusy);
    assert_eq!(post(0x5000, 0, local + 128), 2);
    assert_eq!(load(0x3008), Ok(1), "read pointer of H");
    assert_eq!(errno(process.dma_init()), Errno::Ebusy);
    let other = Vehva::new(0x4000);
    assert_eq!(errno(process.unmap_dmades(other)), Errno::Einval);
    process.unmap_dmades(table).expect("unmap");
    assert_eq!(errno(process.unmap_dmades(table)), Errno::Einval);
    assert_eq!(missing(load(0x5000)), Err(FaultKind::MissingPage));
    assert_eq!(
        errno(process.dma_init()),
        Errno::Ebusy,
        "a failed init stays failed"
    );
}

fn the_librarys_ring_can_be_looked_at(column: ErrnoProfile) {
    let node = Node::new(small(column));
    let process = node.process(10, 0);
    process.dma_init().expect("init");
    assert_eq!(errno(process.map_dmades()), Errno::Ebusy);
    let own = memory(&process, 1);
    let local = process.register(own.vemva, M64).expect("register");
    let there = local.checked_add(64).expect("address");
    let word = |at: u64| {
        let mut word = [0; 8];
        process.lhm(Vehva::new(at), &mut word).expect("load");
        u64::from_le_bytes(word)
    };
    assert_eq!(word(0x5000), 0);
    process.dma().hold();
    let handle = windlass_ve::Handle::new();
    process.dma().post(there, local, 8, &handle).expect("post");
    let words = [0, 8, 16, 24].map(|offset| word(0x5000 + offset));
    assert_eq!(words, [1, 8 | 8 << 32, local.raw(), there.raw()]);
    process.dma().resume();
    assert_eq!(word(0x5000), 2);
    let stored = process.shm(Vehva::new(0x5000), &[0; 8]);
    assert_eq!(
        stored.map_err(|fault| fault.kind),
        Err(FaultKind::MemoryProtection),
        "the library's own"
    );
}

fn users_have_files_of_their_own(column: ErrnoProfile) {
    use std::os::fd::{AsFd, OwnedFd};
    let node = Node::new(small(column));
    let file = |pid, uid| -> OwnedFd {
        let id = node.service().join(pid, 1, uid, Some(0)).expect("join");
        let reply = node.service().handle(id, Request::Memory { ve: 0 });
        let reply = reply.expect("file");
        let fd = reply.files().first().map(|fd| fd.try_clone_to_owned());
        fd.expect("one").expect("descriptor")
    };
    let stat = |fd: &OwnedFd| rustix::fs::fstat(fd.as_fd()).expect("stat");
    let (a, b, c) = (file(10, UID), file(11, UID), file(12, UID + 1));
    assert_eq!(stat(&a).st_ino, stat(&b).st_ino, "one user");
    assert_ne!(stat(&a).st_ino, stat(&c).st_ino, "two users");
    assert_eq!(stat(&a).st_mode & 0o777, 0o600);
    if rustix::process::geteuid().is_root() {
        assert_eq!((stat(&a).st_uid, stat(&c).st_uid), (UID, UID + 1));
    } else {
        eprintln!("not root: the files stay the service's");
    }
    // Capacity is the VE's, whoever uses it.
    let (mine, theirs) = (
        node.process_of(20, Some(0), UID),
        node.process_of(21, Some(0), UID + 1),
    );
    let half = memory(&mine, 32);
    let other = memory(&theirs, 32);
    assert_eq!(errno(mine.alloc(1, PageSize::M2)), Errno::Enomem);
    half.bytes.write(0, b"mine").expect("write");
    other.bytes.write(0, b"them").expect("write");
    assert_eq!(&read::<4>(&half.bytes, 0), b"mine");
    theirs.free(other.vemva).expect("free");
    let taken = memory(&mine, 32);
    assert_eq!(read::<4>(&taken.bytes, 0), [0; 4]);
    assert_eq!(&read::<4>(&half.bytes, 0), b"mine");
}
