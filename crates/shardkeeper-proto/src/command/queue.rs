//! The queue of a shard's commands that wait for the session or the rate limits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Command, CommandClass};
use crate::payload::Payload;

/// The number of a command, unique within its shard. The caller of the state machine assigns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "a number, and nothing else")]
pub struct CommandId(pub u64);

/// The commands that wait in a shard.
#[derive(Debug, Default)]
pub(crate) struct CommandQueue {
    voice: VecDeque<Waiting>,
    bulk: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    id: CommandId,
    command: Command,
    /// When the command expires; `None` means never.
    expires_at: Option<Instant>,
}

impl CommandQueue {
    fn of(&self, class: CommandClass) -> &VecDeque<Waiting> {
        match class {
            CommandClass::Voice => &self.voice,
            CommandClass::Bulk => &self.bulk,
        }
    }

    fn of_mut(&mut self, class: CommandClass) -> &mut VecDeque<Waiting> {
        match class {
            CommandClass::Voice => &mut self.voice,
            CommandClass::Bulk => &mut self.bulk,
        }
    }

    pub(crate) fn has_room(&self, class: CommandClass) -> bool {
        self.of(class).len() < class.capacity()
    }

    pub(crate) fn waiting(&self, class: CommandClass) -> usize {
        self.of(class).len()
    }

    pub(crate) fn is_waiting(&self, class: CommandClass) -> bool {
        !self.of(class).is_empty()
    }

    /// Adds a command. The caller has checked the capacity, and passes the same lifetime for all commands of
    /// a class.
    pub(crate) fn push(&mut self, now: Instant, id: CommandId, command: Command, lifetime: Duration) {
        self.insert(id, command, now.checked_add(lifetime));
    }

    /// Adds a command, whatever the capacity, behind those that expire no later. As all commands of a class
    /// have the same lifetime, this is the order in which shards accepted them.
    pub(crate) fn insert(&mut self, id: CommandId, command: Command, expires_at: Option<Instant>) {
        let queue = self.of_mut(command.class);
        let is_before = |waiting: &Waiting| match (waiting.expires_at, expires_at) {
            (Some(one), Some(other)) => one <= other,
            (_, None) => true,
            (None, Some(_)) => false,
        };
        let place = queue.iter().rposition(is_before).map_or(0, |last| last + 1);
        queue.insert(place, Waiting { id, command, expires_at });
    }

    /// Removes the commands that [can move](Command::can_move), in the order in which they would be sent.
    pub(crate) fn take_movable(&mut self) -> Vec<(CommandId, Command, Option<Instant>)> {
        let mut taken = Vec::new();
        for class in CommandClass::ALL {
            let waiting = std::mem::take(self.of_mut(class));
            for Waiting { id, command, expires_at } in waiting {
                if command.can_move() {
                    taken.push((id, command, expires_at));
                } else {
                    self.of_mut(class).push_back(Waiting { id, command, expires_at });
                }
            }
        }
        taken
    }

    pub(crate) fn pop(&mut self, class: CommandClass) -> Option<(CommandId, Payload)> {
        self.of_mut(class).pop_front().map(|waiting| (waiting.id, waiting.command.payload))
    }

    /// Removes a command that has expired, if any.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<CommandId> {
        let class = CommandClass::ALL
            .into_iter()
            .find(|class| self.expiry_of(*class).is_some_and(|expires_at| expires_at <= now))?;
        self.pop(class).map(|(id, _)| id)
    }

    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        CommandClass::ALL.into_iter().filter_map(|class| self.expiry_of(class)).min()
    }

    fn expiry_of(&self, class: CommandClass) -> Option<Instant> {
        self.of(class).front()?.expires_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VoiceStateUpdate;

    #[test]
    fn a_queue_has_a_bound_and_a_lifetime_per_class() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut queue = CommandQueue::default();
        for number in 0..CommandClass::Voice.capacity() as u64 {
            assert!(queue.has_room(CommandClass::Voice));
            let at = start + second * u32::try_from(number).unwrap();
            queue.push(at, CommandId(number), VoiceStateUpdate::leave(1).into(), second * 60);
        }
        assert!(!queue.has_room(CommandClass::Voice) && queue.has_room(CommandClass::Bulk));
        assert_eq!(queue.next_expiry(), Some(start + second * 60));
        assert_eq!(queue.pop_expired(start + second * 59), None);
        let expired = std::iter::from_fn(|| queue.pop_expired(start + second * 61));
        assert_eq!(expired.collect::<Vec<_>>(), [CommandId(0), CommandId(1)]);
        assert_eq!(queue.pop(CommandClass::Voice).map(|(id, _)| id), Some(CommandId(2)));
        assert!(!queue.is_waiting(CommandClass::Bulk));
    }
}
