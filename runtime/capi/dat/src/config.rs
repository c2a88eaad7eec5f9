//! The parameters of a `dat.conf` line: where the adapter is and who may connect to it.
//!
//! `"ADDRESS [secret=FILE]"`: an address of this host or the name of a network device, and a file with the 32 bytes
//! that every peer must know. Without a file anybody who reaches the adapter is let in, so that only an address of the
//! loopback device is accepted.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;

use windlass_wire::Secret;

/// What all adapters without a secret know.
const NO_SECRET: [u8; 32] = *b"windlass uDAPL without a secret\0";

/// An adapter that can be opened.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) address: IpAddr,
    pub(crate) secret: Secret,
}

/// Reads the parameters; the error says what to change.
pub(crate) fn parse(parameters: &str) -> Result<Config, String> {
    let mut words = parameters.split_whitespace();
    let interface = words.next().unwrap_or_default();
    let address = match interface.parse() {
        Ok(address) => address,
        Err(_) => device(interface).ok_or_else(|| {
            format!("'{interface}' is neither an address nor a network device with one")
        })?,
    };
    let mut secret = None;
    for word in words {
        match word.split_once('=') {
            Some(("secret", path)) => secret = Some(read(path)?),
            _ => return Err(format!("'{word}' is no parameter; 'secret=FILE' is")),
        }
    }
    let secret = match secret {
        Some(secret) => secret,
        None if address.is_loopback() => Secret::from_bytes(NO_SECRET),
        None => {
            return Err(format!(
                "other hosts reach {address}: add 'secret=FILE' with a file of 32 random bytes that only its owner \
                 can read"
            ));
        }
    };
    Ok(Config { address, secret })
}

fn read(path: &str) -> Result<Secret, String> {
    let tell = |why: std::io::Error| format!("secret file {path}: {why}");
    let mut file = File::open(path).map_err(tell)?;
    let about = file.metadata().map_err(tell)?;
    if about.mode() & 0o077 != 0 {
        return Err(format!(
            "secret file {path}: others may open it; chmod it to 600"
        ));
    }
    let secret = Secret::from_reader(&mut file).map_err(tell)?;
    match file.read(&mut [0]) {
        Ok(0) => Ok(secret),
        _ => Err(format!("secret file {path}: longer than 32 bytes")),
    }
}

/// The first IPv4 address of a network device.
fn device(name: &str) -> Option<IpAddr> {
    let mut list = std::ptr::null_mut();
    // SAFETY: `list` is a valid place for the answer.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return None;
    }
    let mut found = None;
    let mut next = list;
    while !next.is_null() && found.is_none() {
        // SAFETY: an element of the list that getifaddrs made, which is freed only below.
        let (device, address, following) =
            unsafe { ((*next).ifa_name, (*next).ifa_addr, (*next).ifa_next) };
        // SAFETY: a device's name is a C string of the list.
        let is_it = unsafe { std::ffi::CStr::from_ptr(device) }.to_bytes() == name.as_bytes();
        // SAFETY: an address of the list is null or has a family.
        let is_v4 = !address.is_null() && unsafe { (*address).sa_family } == libc::AF_INET as u16;
        if is_it && is_v4 {
            // SAFETY: an address of AF_INET is a sockaddr_in.
            found = Some(unsafe { (*address.cast::<libc::sockaddr_in>()).sin_addr.s_addr });
        }
        next = following;
    }
    // SAFETY: the list that getifaddrs made, freed once.
    unsafe { libc::freeifaddrs(list) };
    found.map(|address| IpAddr::V4(Ipv4Addr::from(u32::from_be(address))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_other_hosts_reach_needs_a_secret() {
        assert!(parse("127.0.0.1").is_ok());
        assert_eq!(
            parse("lo").unwrap().address,
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        );
        assert!(parse("192.0.2.1").unwrap_err().contains("secret=FILE"));
        assert!(parse("").is_err() && parse("no-such-device").is_err());
        assert!(parse("127.0.0.1 colour=blue").is_err());
    }

    #[test]
    fn a_secret_is_a_private_file_of_32_bytes() {
        let path = std::env::temp_dir().join(format!("wltest-dapl-{}", std::process::id()));
        let words = format!("192.0.2.1 secret={}", path.display());
        let mode = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, mode).unwrap();
        };
        std::fs::write(&path, [7; 32]).unwrap();
        mode(0o644);
        let open = parse(&words).unwrap_err();
        mode(0o600);
        let right = parse(&words);
        std::fs::write(&path, [7; 33]).unwrap();
        let long = parse(&words).unwrap_err();
        std::fs::write(&path, [7; 31]).unwrap();
        let short = parse(&words);
        std::fs::remove_file(&path).unwrap();
        assert!(
            open.contains("600") && long.contains("longer"),
            "{open} {long}"
        );
        assert!(right.is_ok() && short.is_err());
    }
}
