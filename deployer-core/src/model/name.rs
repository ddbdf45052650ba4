//! Names, numbers and digests: newtypes that cannot hold a wrong value.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::time::Timestamp;
use crate::error::{Error, ErrorKind};

macro_rules! text_newtype {
    ($(#[$meta:meta])* $name:ident, $check:path) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes the text if it keeps the rules of this type.
            ///
            /// # Errors
            /// [`ErrorKind::InvalidInput`], with the rule in the message.
            pub fn new(text: impl Into<String>) -> Result<Self, Error> {
                let text = text.into();
                match $check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(rule) => Err(Error::new(ErrorKind::InvalidInput, rule).with_resource(format!("{text:?}"))),
                }
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// The rule of Compose project names: <https://github.com/compose-spec/compose-spec/blob/main/spec.md#name-top-level-element>.
fn check_app(text: &str) -> Result<(), &'static str> {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    if first && rest && text.len() <= 63 {
        Ok(())
    } else {
        Err(
            "an application's name is 1 to 63 lower-case letters, digits, `-` and `_`, beginning with a letter or digit",
        )
    }
}

fn check_service(text: &str) -> Result<(), &'static str> {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if first && rest && text.len() <= 63 {
        Ok(())
    } else {
        Err("a name is 1 to 63 letters, digits, `-`, `_` and `.`, beginning with a letter or digit")
    }
}

fn check_digest(text: &str) -> Result<(), &'static str> {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        Ok(())
    } else {
        Err("a digest is `sha256:` and 64 lower-case hexadecimal digits")
    }
}

fn check_id(text: &str) -> Result<(), &'static str> {
    if !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/') {
        Ok(())
    } else {
        Err("an id is 1 to 128 visible ASCII characters without `/`")
    }
}

text_newtype!(
    /// The name of an application, unique in one release store and one backend. The rule is that of a Compose project name.
    AppName, check_app
);
text_newtype!(
    /// The name of a service, network or volume within its application.
    ServiceName, check_service
);
text_newtype!(
    /// A content digest: `sha256:` and 64 hexadecimal digits.
    Digest, check_digest
);
text_newtype!(
    /// Identifies one deployment. Ids made later sort later.
    DeploymentId, check_id
);
text_newtype!(
    /// Identifies one instance in its backend: a container id, a task ARN's last part.
    InstanceId, check_id
);

impl DeploymentId {
    /// An id that nobody else has, later in order than all made before.
    #[must_use]
    pub fn fresh() -> Self {
        Self(uuid::Uuid::now_v7().simple().to_string())
    }

    /// When it was made by [`fresh`](Self::fresh), by that computer's clock; none, if it was made in another way.
    #[must_use]
    pub fn made_at(&self) -> Option<Timestamp> {
        let id = uuid::Uuid::try_parse(&self.0).ok().filter(|id| id.get_version_num() == 7)?;
        let (seconds, nanos) = id.get_timestamp()?.to_unix();
        let millis = seconds.checked_mul(1_000)?.checked_add(u64::from(nanos) / 1_000_000)?;
        i64::try_from(millis).ok().map(Timestamp::from_millis)
    }
}

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        let hash = sha2::Sha256::digest(bytes);
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in hash {
            text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        }
        Self(text)
    }

    /// The first twelve hexadecimal digits: enough to tell digests apart in names and tables.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[7..19]
    }
}

/// The number of a release within its application: `v1`, `v2`, ...
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReleaseNumber(pub u64);

impl fmt::Display for ReleaseNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl FromStr for ReleaseNumber {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.strip_prefix('v').unwrap_or(text).parse() {
            Ok(number) if number > 0 => Ok(Self(number)),
            _ => Err(Error::new(ErrorKind::InvalidInput, "a release is a number such as `v3` or `3`")
                .with_resource(format!("{text:?}"))),
        }
    }
}

/// Identifies a revision by what it runs: the service's name and twelve digits of the hash of its workload.
///
/// Two releases whose service did not change share the revision; that is how a service whose definition has not
/// changed is left alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RevisionId {
    service: ServiceName,
    hash: String,
}

impl RevisionId {
    /// The revision of this service whose workload has this digest.
    #[must_use]
    pub fn new(service: ServiceName, workload: &Digest) -> Self {
        Self { service, hash: workload.short().to_owned() }
    }

    /// The service it is a revision of.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The twelve digits that tell it from other revisions of its service.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

impl fmt::Display for RevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.service, self.hash)
    }
}

impl From<RevisionId> for String {
    fn from(id: RevisionId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for RevisionId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl FromStr for RevisionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.rsplit_once('@') {
            Some((service, hash)) if hash.len() == 12 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Ok(Self { service: ServiceName::new(service)?, hash: hash.to_owned() })
            }
            _ => Err(Error::new(ErrorKind::InvalidInput, "a revision is `service@` and twelve hexadecimal digits")
                .with_resource(format!("{text:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_rules() {
        for good in ["shop", "0", "a-b_c"] {
            assert!(AppName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "Shop", "-a", "a b", "ä", &"a".repeat(64)] {
            assert!(AppName::new(bad).is_err(), "{bad}");
        }
        assert!(ServiceName::new("Web.1").is_ok());
        assert!(serde_json::from_str::<ServiceName>("\"../etc\"").is_err());
    }

    #[test]
    fn fresh_ids_say_when_they_were_made() {
        let id: DeploymentId = "0193495f4d7b7000800000000000000a".parse().unwrap();
        assert_eq!(id.made_at(), Some(Timestamp::from_millis(0x0193_495f_4d7b)));
        assert!(DeploymentId::fresh().made_at().is_some());
        assert_eq!("release-7".parse::<DeploymentId>().unwrap().made_at(), None);
    }

    #[test]
    fn digests_are_sha256() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.as_str(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.short(), "ba7816bf8f01");
        assert!(Digest::new("sha256:BA").is_err());
    }

    #[test]
    fn revisions_survive_text() {
        let id = RevisionId::new(ServiceName::new("web").unwrap(), &Digest::of(b"x"));
        assert_eq!(id.to_string().parse::<RevisionId>().unwrap(), id);
        assert!("web@12".parse::<RevisionId>().is_err());
    }

    #[test]
    fn release_numbers_parse() {
        assert_eq!("v12".parse::<ReleaseNumber>().unwrap(), ReleaseNumber(12));
        assert!("v0".parse::<ReleaseNumber>().is_err());
        assert!("latest".parse::<ReleaseNumber>().is_err());
    }
}
