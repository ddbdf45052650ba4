//! Dividing an IPv4 subnet: its lower half is the engine's to hand out, its upper half is ours.

use std::collections::HashSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 subnet in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subnet {
    first: u32,
    prefix: u8,
}

impl Subnet {
    /// The longest prefix that is worth dividing: eight addresses for the engine, eight for us.
    const LONGEST: u8 = 28;

    /// The lower half, unless the subnet is too small to be divided.
    pub(crate) fn lower_half(self) -> Option<Self> {
        (self.prefix <= Self::LONGEST).then_some(Self { first: self.first, prefix: self.prefix + 1 })
    }

    /// The first `count` addresses that are in this subnet, not in `dynamic`, and not taken.
    pub(crate) fn free(self, dynamic: Self, taken: &HashSet<Ipv4Addr>, count: usize) -> Vec<Ipv4Addr> {
        let outside = |address: &u32| !(dynamic.first..=dynamic.last()).contains(address);
        // The subnet's own first and last address name the subnet and everybody in it.
        let usable = (self.first + 1..self.last()).filter(outside).map(Ipv4Addr::from);
        usable.filter(|address| !taken.contains(address)).take(count).collect()
    }

    fn last(self) -> u32 {
        self.first | u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0)
    }
}

impl FromStr for Subnet {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = text.split_once('/').ok_or(())?;
        let address: Ipv4Addr = address.parse().map_err(drop)?;
        let prefix: u8 = prefix.parse().map_err(drop)?;
        // Shorter than /8 is nobody's container network; refusing it keeps the arithmetic within 32 bits.
        if !(8..=32).contains(&prefix) {
            return Err(());
        }
        let mask = u32::MAX << (32 - u32::from(prefix));
        Ok(Self { first: u32::from(address) & mask, prefix })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn text_is_read_and_written() {
        assert_eq!(subnet("172.18.0.0/16").to_string(), "172.18.0.0/16");
        assert_eq!(subnet("172.18.0.1/16").to_string(), "172.18.0.0/16", "host bits are dropped");
        for bad in ["", "172.18.0.0", "172.18.0.0/33", "0.0.0.0/0", "fd00::/64", "x/8"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn halves_are_disjoint_and_small_ones_are_left_whole() {
        assert_eq!(subnet("172.18.0.0/16").lower_half(), Some(subnet("172.18.0.0/17")));
        assert_eq!(subnet("10.0.0.0/28").lower_half(), Some(subnet("10.0.0.0/29")));
        assert_eq!(subnet("10.0.0.0/29").lower_half(), None);
    }

    #[test]
    fn free_addresses_are_in_the_upper_half_and_skip_what_is_taken() {
        let (whole, lower) = (subnet("10.1.0.0/28"), subnet("10.1.0.0/29"));
        let taken = HashSet::from(["10.1.0.9".parse().unwrap(), "10.1.0.3".parse().unwrap()]);
        let free = whole.free(lower, &taken, 3);
        assert_eq!(free, ["10.1.0.8", "10.1.0.10", "10.1.0.11"].map(|text| text.parse::<Ipv4Addr>().unwrap()));
        assert_eq!(whole.free(lower, &HashSet::new(), 99).len(), 7, "the broadcast address is never given");
    }

    #[test]
    fn a_subnet_at_the_very_end_does_not_overflow() {
        let (whole, lower) = (subnet("255.255.255.240/28"), subnet("255.255.255.240/29"));
        assert_eq!(whole.free(lower, &HashSet::new(), 99).last(), Some(&Ipv4Addr::new(255, 255, 255, 254)));
    }
}
