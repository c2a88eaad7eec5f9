//! Which network ranks of other nodes come by: an address of this host, or the network that it lies in.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;

/// `ADDRESS` or `ADDRESS/BITS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Default for Network {
    /// The host itself: nobody else needs to hear of its ranks (reliability S3).
    fn default() -> Network {
        Network {
            address: Ipv4Addr::LOCALHOST.into(),
            bits: Ipv4Addr::BITS,
        }
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Network, ()> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(drop)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(drop)?;
        let all = width(address);
        match bits.unwrap_or(all) {
            bits if bits <= all && !address.is_unspecified() => Ok(Network { address, bits }),
            _ => Err(()),
        }
    }
}

const fn width(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => Ipv4Addr::BITS,
        IpAddr::V6(_) => Ipv6Addr::BITS,
    }
}

/// In the upper bits.
const fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => (address.to_bits() as u128) << (Ipv6Addr::BITS - Ipv4Addr::BITS),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Network {
    /// This host's address there.
    ///
    /// # Errors
    /// There is none.
    pub fn local(&self) -> io::Result<IpAddr> {
        // A datagram socket that is connected has the address it would send from; nothing is sent.
        let any: IpAddr = match self.address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(SocketAddr::new(self.address, 1))?;
        let local = socket.local_addr()?.ip();
        if self.contains(local) {
            Ok(local)
        } else {
            Err(io::Error::from(io::ErrorKind::AddrNotAvailable))
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let differ = number(address) ^ number(self.address);
        width(address) == width(self.address)
            && differ.checked_shr(Ipv6Addr::BITS - self.bits).unwrap_or(0) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().expect("a network")
    }

    #[test]
    fn an_address_is_in_its_network() {
        let contains = |network_: &str, address: &str| {
            network(network_).contains(address.parse().expect("an address"))
        };
        assert!(contains("10.1.2.3", "10.1.2.3") && !contains("10.1.2.3", "10.1.2.4"));
        assert!(contains("10.1.0.0/16", "10.1.255.4") && !contains("10.1.0.0/16", "10.2.0.1"));
        assert!(contains("1.0.0.0/0", "200.1.1.1") && !contains("1.0.0.0/0", "::1"));
        assert!(contains("fd00::/8", "fdff::1") && !contains("fd00::/8", "fe00::1"));
        assert!(contains("fd00::1/0", "::1"));
        for refused in [
            "",
            "10.1.2",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "::/129",
            "eth0",
            "0.0.0.0",
        ] {
            assert!(refused.parse::<Network>().is_err(), "{refused}");
        }
    }

    #[test]
    fn a_host_has_an_address_in_its_networks() {
        let loopback: IpAddr = Ipv4Addr::LOCALHOST.into();
        assert_eq!(Network::default().local().expect("always there"), loopback);
        let found = network("127.0.0.0/8").local().expect("always there");
        assert!(found.is_loopback());
        // Of the block for documentation: nobody's address.
        assert!(network("203.0.113.1").local().is_err());
    }
}
