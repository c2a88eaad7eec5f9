//! Addresses as C has them: `struct sockaddr`.

use std::ffi::c_void;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use windlass_dat::{Error, Result, Subtype, Type};

/// A `struct sockaddr` of either family.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct SockAddr(libc::sockaddr_in6);

impl SockAddr {
    /// The address, in the layout of its family.
    pub(crate) fn new(address: SocketAddr) -> Self {
        // SAFETY: all zero is a valid sockaddr_in6 (family AF_UNSPEC), which is plain data.
        let mut all: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
        match address.ip() {
            IpAddr::V6(ip) => {
                all.sin6_family = libc::AF_INET6 as u16;
                all.sin6_port = address.port().to_be();
                all.sin6_addr.s6_addr = ip.octets();
            }
            IpAddr::V4(ip) => {
                let place = (&raw mut all).cast::<libc::sockaddr_in>();
                // SAFETY: a sockaddr_in6 is larger than a sockaddr_in and at least as aligned; both are plain data.
                unsafe {
                    (*place).sin_family = libc::AF_INET as u16;
                    (*place).sin_port = address.port().to_be();
                    (*place).sin_addr.s_addr = u32::from(ip).to_be();
                }
            }
        }
        Self(all)
    }

    /// No address.
    pub(crate) fn none() -> Self {
        // SAFETY: all zero is a valid sockaddr_in6, which is plain data.
        Self(unsafe { std::mem::zeroed() })
    }
}

/// The IP address that C points to; its port is not looked at, since a qualifier is one.
///
/// # Safety
/// `address` is null or a `struct sockaddr` of its family.
pub(crate) unsafe fn ip(address: *const c_void, argument: Subtype) -> Result<IpAddr> {
    if address.is_null() {
        return Err(Error::arg(argument));
    }
    // SAFETY: every sockaddr begins with its family; alignment is not asked for.
    let family = unsafe { address.cast::<libc::sa_family_t>().read_unaligned() };
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: a sockaddr of this family is a sockaddr_in, by the caller's promise.
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Ok(IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr))))
        }
        libc::AF_INET6 => {
            // SAFETY: a sockaddr of this family is a sockaddr_in6, by the caller's promise.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Ok(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4))
        }
        _ => Err(Error::new(
            Type::InvalidAddress,
            Subtype::AddressUnsupported,
        )),
    }
}
