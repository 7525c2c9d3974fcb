//! Whether clients spread their first heartbeats over the interval (GW-110).

use std::collections::BTreeMap;

/// How many first heartbeats make a sample. If they are spread evenly, all of them lie within a tenth of the
/// interval once in 10^14 times.
pub(crate) const SAMPLE: usize = 16;
/// The most incomplete samples. Beyond that the oldest one is dropped.
const MAX_SAMPLES: usize = 1024;
/// Heartbeats within this part of the interval have no jitter.
const SPREAD: f64 = 0.1;

/// The first heartbeats of connections, as fractions of the interval after Hello.
///
/// A sample consists of connections that were made one after the other. The order in which the heartbeats
/// arrive would not do: when many connections are opened at once, heartbeats that arrive together are always
/// close.
#[derive(Default)]
pub(crate) struct Jitter {
    samples: BTreeMap<u64, Vec<f64>>,
}

impl Jitter {
    /// Notes the first heartbeat of a connection. Returns whether it completes a sample without jitter.
    pub(crate) fn note(&mut self, connection: u64, first: f64) -> bool {
        let sample = connection.saturating_sub(1) / SAMPLE as u64;
        let firsts = self.samples.entry(sample).or_default();
        firsts.push(first);
        let is_complete = firsts.len() == SAMPLE;
        let (least, most) =
            firsts.iter().fold((f64::MAX, f64::MIN), |(least, most), at| (least.min(*at), most.max(*at)));
        if is_complete {
            self.samples.remove(&sample);
        } else if self.samples.len() > MAX_SAMPLES {
            self.samples.pop_first();
        }
        is_complete && most - least < SPREAD
    }
}
