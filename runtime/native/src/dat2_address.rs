//! Addresses as C has them.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address there, if it is one.
///
/// # Safety
/// Null, or a socket address of its family.
pub(crate) unsafe fn address(place: *const c_void) -> Option<IpAddr> {
    if place.is_null() {
        return None;
    }
    // SAFETY: every socket address begins with its family.
    let family = unsafe { place.cast::<libc::sa_family_t>().read_unaligned() };
    let ip = match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: an address of this family, by the caller's promise.
            let v4 = unsafe { place.cast::<libc::sockaddr_in>().read_unaligned() };
            IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { place.cast::<libc::sockaddr_in6>().read_unaligned() };
            IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr))
        }
        _ => return None,
    };
    (!ip.is_unspecified()).then_some(ip)
}

/// `struct sockaddr` of either family.
#[repr(C)]
pub(crate) union SockAddr {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl SockAddr {
    pub(crate) fn new(address: IpAddr) -> SockAddr {
        // SAFETY: plain data, for which zeros are valid.
        let mut all: SockAddr = unsafe { std::mem::zeroed() };
        match address {
            IpAddr::V4(ip) => {
                all.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: 0,
                    sin_addr: libc::in_addr {
                        s_addr: u32::from(ip).to_be(),
                    },
                    sin_zero: [0; 8],
                };
            }
            IpAddr::V6(ip) => {
                all.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: 0,
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr {
                        s6_addr: ip.octets(),
                    },
                    sin6_scope_id: 0,
                };
            }
        }
        all
    }
}
