//! The path of a shard's events into the subscriptions while its group is resharded.
//!
//! Input: events from the driver, and the verdicts of the [overlap](super::overlap). Output: the events that
//! this side delivers, to the same subscriptions as always.

use shardkeeper_proto::Envelope;

use super::overlap::{HeldDispatch, Marks, NewVerdict, OldVerdict, Side};
use super::{Dispatch, Publisher};

/// Held events that a new shard publishes in one go.
const BATCH: usize = 64;

impl Publisher {
    pub(super) fn publish_overlapping(&mut self, envelope: &Envelope<'_>, numbers: (u64, bool)) {
        let Some(part) = self.part.clone() else { return };
        let (key, sequence) = (self.key, numbers.0);
        let event = envelope.event_name();
        let make = |marks| {
            let dispatch = Dispatch::new(key, numbers, event, envelope);
            Dispatch { marks, ..dispatch }
        };
        if part.side == Side::Old {
            // Chosen before the overlap is locked: a topic may run code of the bot.
            self.choose(event, envelope);
            let verdict = part.old_event(key.id, envelope, numbers, || {
                self.deliver(sequence, || make(Marks::default()));
                !self.spill.is_empty()
            });
            if verdict == OldVerdict::Suppress {
                self.watermark.pass(sequence);
            }
            return;
        }
        let is_wanted = self.wanted.contains(event);
        let hold = || HeldDispatch { sequence, dispatch: is_wanted.then(|| make(Marks::default())) };
        match part.new_event(key.id, envelope, numbers, hold) {
            NewVerdict::Publish(marks) => {
                self.choose(event, envelope);
                self.deliver(sequence, || make(marks));
            }
            NewVerdict::Warming if is_wanted => {
                self.choose(event, envelope);
                let marks = Marks { warming: true, ..Marks::default() };
                self.deliver_aside(&make(marks), |subscriber| subscriber.topic.wants_warming());
            }
            // The watermark stays where it is until the cut-over, since what is held is not acknowledged.
            NewVerdict::Warming | NewVerdict::Taken => self.pass_dropped(),
        }
    }

    /// Lets the watermark pass what was dropped, once nothing before it is held.
    fn pass_dropped(&mut self) {
        let Some(part) = &self.part else { return };
        if let Some(done) = part.done_up_to(self.key.id) {
            self.watermark.pass(done);
            self.passed = done;
        }
    }

    /// Publishes held events, until a subscription has no room or a batch is done.
    pub(super) fn release(&mut self) {
        let Some(part) = self.part.clone() else { return };
        self.refresh();
        for _ in 0..BATCH {
            if !self.spill.is_empty() {
                return;
            }
            let Some((held, marks, owes)) = part.take(self.key.id) else { return self.pass_dropped() };
            let HeldDispatch { sequence, dispatch } = held;
            let Some(dispatch) = dispatch else {
                self.watermark.pass(sequence);
                continue;
            };
            let dispatch = Dispatch { marks, ..dispatch };
            let envelope = Envelope::dispatch(dispatch.name(), sequence, dispatch.data());
            self.choose(dispatch.event_name(), &envelope);
            if owes {
                self.deliver(sequence, || dispatch.clone());
            } else {
                self.deliver_aside(&dispatch, |_| true);
            }
        }
    }

    /// Notes in the overlap whether a subscription is behind. Until then it counts as being behind.
    pub(super) fn note_behind(&self) {
        if let Some(part) = &self.part {
            part.set_behind(self.key.id, !self.spill.is_empty());
        }
    }

    /// The shard's session ended (`begins` is `false`), or another one begins.
    pub(crate) fn session_changed(&mut self, begins: bool) {
        self.refresh();
        // A shard without a session is asked nothing more, and has to report here.
        self.note_behind();
        self.passed = 0;
        if let Some(part) = &self.part {
            part.session_changed(self.key.id, begins);
        }
    }

    /// Everything that Discord sent before the question of this number was published.
    pub(crate) fn probed(&mut self, number: u64) {
        self.refresh();
        self.note_behind();
        if let Some(part) = &self.part {
            part.probed(self.key.id, number);
        }
    }

    /// Whether the shard has to pause reading, because the overlap is full of what it has read.
    pub(crate) fn is_held_up(&self) -> bool {
        self.part.as_ref().is_some_and(|part| part.is_full())
    }

    /// Whether the shard is on the new side of an overlap, which may give it something to publish at any time.
    pub(crate) fn is_on_new_side(&self) -> bool {
        self.part.as_ref().is_some_and(|part| part.side == Side::New)
    }

    /// Catches up or, when nothing is behind, waits until the overlap moves for this shard. `paused`: whether
    /// the shard waits to read on.
    ///
    /// # Cancel safety
    ///
    /// Safe, as [`catch_up`](Self::catch_up) is.
    pub(crate) async fn attend(&mut self, paused: bool) {
        if self.is_behind() {
            return self.catch_up().await;
        }
        match &self.part {
            Some(part) if part.side == Side::New => {
                part.moved(self.key.id, self.passed, paused).await;
                self.pass_dropped();
            }
            _ => std::future::pending().await,
        }
    }
}
