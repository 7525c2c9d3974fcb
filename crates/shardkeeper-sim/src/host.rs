//! The URLs of the Gateway: the bootstrap URL, and those for Resume. Their paths differ, so that one port
//! serves them all.

use serde::Deserialize;

/// The path of the URLs for Resume, which the bootstrap URL does not have.
pub(crate) const RESUME_PATH: &str = "/resume";

/// The Gateway URL of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Host {
    /// The bootstrap URL in `GET /gateway/bot`.
    Gateway,
    /// The URL for Resume with this number, below
    /// [`SimConfig::resume_hosts`](crate::SimConfig::resume_hosts).
    Resume(u64),
    /// Every URL.
    Any,
}

impl Host {
    /// The URL of a WebSocket handshake, by its path.
    pub(crate) fn of(path: &str) -> Self {
        match path.trim_end_matches('/').rsplit_once(RESUME_PATH) {
            Some((_, "")) => Self::Resume(0),
            Some((_, number)) => {
                let number = number.strip_prefix('/').and_then(|number| number.parse().ok());
                number.map_or(Self::Gateway, Self::Resume)
            }
            None => Self::Gateway,
        }
    }

    pub(crate) fn is_for_resume(self) -> bool {
        matches!(self, Self::Resume(_))
    }

    /// Whether a fault of this URL affects connections to another one.
    pub(crate) fn includes(self, other: Self) -> bool {
        self == Self::Any || self == other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_the_host() {
        for (path, host) in [
            ("/", Host::Gateway),
            ("", Host::Gateway),
            ("/resume", Host::Resume(0)),
            ("/resume/", Host::Resume(0)),
            ("/resume/17", Host::Resume(17)),
            ("/resume/17/", Host::Resume(17)),
            ("/some/where/resume/2", Host::Resume(2)),
            ("/resumed", Host::Gateway),
            ("/resume/x", Host::Gateway),
        ] {
            assert_eq!(Host::of(path), host, "{path}");
        }
    }
}
