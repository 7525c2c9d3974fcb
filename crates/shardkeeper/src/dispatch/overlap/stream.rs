//! The alignment of one stream of events, as two sessions deliver it.
//!
//! Input: the fingerprints of what the old session has delivered, and of what the new session has received.
//! Output: a [`Verdict`] for each event of the new session: delivered before, new, or in doubt.
//!
//! The invariant: **both records are contiguous pieces of one true stream, and the record of the old side
//! begins before the new session does.** If the stream is e₀, e₁, …, then the old side has delivered
//! e\[a..b\) and the new side has received e\[s..t\), with a ≤ s. All but s − a is known. From the moment when
//! s − a is proved (the stream is *locked*), the events of the two sides are matched in pairs, and only one
//! side can have a rest. Two things prove it: an event that cannot occur twice, seen on both sides; and a
//! stream in which nothing happened between two moments of which Discord's acknowledgements show that each
//! side had everything ([`settle`](Stream::settle)).
//!
//! Nothing is dropped unless it is proved to be delivered before, and nothing is delivered without a mark
//! unless it is proved to be new. Also where the invariant does not hold (a session leaves out an event, or
//! writes it differently), an event is delivered and marked rather than lost.

use std::collections::VecDeque;

use super::identity::Print;

/// The outcome for an event of the new session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Verdict {
    /// The old side has delivered the event.
    Double,
    /// The old side has not delivered the event.
    New,
    /// Cannot be decided: to be delivered with a mark.
    Doubtful,
}

/// Number of an event that the new side holds.
pub(super) type Entry = u64;

#[derive(Debug)]
pub(super) struct Stream {
    /// What the old side has delivered and the new side has not received.
    lead: VecDeque<Print>,
    /// What the new side has received and the old side has not delivered. Empty after the cut-over.
    held: VecDeque<(Print, Entry)>,
    /// Whether the position of each side is known. Then one of the two lists is empty.
    locked: bool,
    /// Whether nothing is missing in `lead` since before the new session began.
    complete: bool,
    cut: bool,
    /// Lengths of the two lists at the moments that [`settle`](Self::settle) compares.
    marks: (Option<usize>, Option<usize>),
}

impl Stream {
    /// `complete`: whether the old side's record began before the new session.
    pub(super) fn new(complete: bool) -> Self {
        Self {
            lead: VecDeque::new(),
            held: VecDeque::new(),
            locked: false,
            complete,
            cut: false,
            marks: (None, None),
        }
    }

    /// Number of fingerprints of the old side.
    pub(super) fn lead(&self) -> usize {
        self.lead.len()
    }

    /// Whether the stream says the same of every further event as a new stream would: nothing is recorded.
    pub(super) fn is_done(&self) -> bool {
        self.lead.is_empty() && self.held.is_empty() && (self.locked || self.complete)
    }

    pub(super) fn is_locked(&self) -> bool {
        self.locked
    }

    /// The old side delivers an event.
    pub(super) fn old(&mut self, print: Print, decide: &mut impl FnMut(Entry, Verdict)) {
        if self.locked
            && let Some((first, entry)) = self.held.front().copied()
        {
            if first == print {
                self.held.pop_front();
                decide(entry, Verdict::Double);
                return;
            }
            self.locked = false;
        }
        self.lead.push_back(print);
        if !self.locked
            && print.unique
            && let Some(held_at) = self.held.iter().position(|(held, _)| *held == print)
        {
            self.lock(self.lead.len() - 1, held_at, decide);
        }
    }

    /// The new side receives an event before the cut-over. Its verdict may come later.
    pub(super) fn new_held(&mut self, print: Print, entry: Entry, decide: &mut impl FnMut(Entry, Verdict)) {
        if self.locked
            && let Some(first) = self.lead.front()
        {
            if *first == print {
                self.lead.pop_front();
                decide(entry, Verdict::Double);
                return;
            }
            self.locked = false;
        }
        self.held.push_back((print, entry));
        if !self.locked
            && print.unique
            && let Some(lead_at) = self.lead.iter().position(|lead| *lead == print)
        {
            self.lock(lead_at, self.held.len() - 1, decide);
        }
    }

    /// The same event is at these places of the two lists, so what stands before it is in pairs too. An event
    /// of the new side whose pair is missing or differs is in doubt.
    fn lock(&mut self, lead_at: usize, held_at: usize, decide: &mut impl FnMut(Entry, Verdict)) {
        for (at, (print, entry)) in self.held.drain(..=held_at).enumerate() {
            let pair = (lead_at + at).checked_sub(held_at).and_then(|at| self.lead.get(at));
            decide(entry, if pair == Some(&print) { Verdict::Double } else { Verdict::Doubtful });
        }
        self.lead.drain(..=lead_at);
        (self.locked, self.marks) = (true, (None, None));
    }

    /// The old side does not deliver this stream any more. Everything held gets its verdict.
    pub(super) fn cut(&mut self, decide: &mut impl FnMut(Entry, Verdict)) {
        self.cut = true;
        let all_new = self.locked || self.complete && self.lead.is_empty();
        // An event that occurs once, and that the old side has not delivered, is new. What follows it is too.
        let first_new = if all_new {
            Some(0)
        } else {
            self.held.iter().position(|(print, _)| print.unique).filter(|_| self.complete)
        };
        for (at, (_, entry)) in self.held.drain(..).enumerate() {
            let is_new = first_new.is_some_and(|first| at >= first);
            decide(entry, if is_new { Verdict::New } else { Verdict::Doubtful });
        }
        if !all_new && first_new.is_some() {
            self.finish();
        }
    }

    /// The new side receives an event after the cut-over.
    pub(super) fn new_after_cut(&mut self, print: Print) -> Verdict {
        match self.lead.front() {
            None if self.locked || self.complete => return Verdict::New,
            Some(first) if self.locked && *first == print => {
                self.lead.pop_front();
                return Verdict::Double;
            }
            _ => self.locked = false,
        }
        if !print.unique {
            return Verdict::Doubtful;
        }
        if let Some(at) = self.lead.iter().position(|lead| *lead == print) {
            self.lead.drain(..=at);
            self.locked = true;
            return Verdict::Double;
        }
        if self.complete {
            self.finish();
            return Verdict::New;
        }
        Verdict::Doubtful
    }

    /// Everything that the new side receives from now on is new.
    pub(super) fn finish(&mut self) {
        self.lead = VecDeque::new();
        self.locked = true;
    }

    /// Notes how much the old side has delivered, before the new side is asked for everything.
    pub(super) fn mark_old(&mut self) {
        self.marks = (Some(self.lead.len()), None);
    }

    /// Notes how much the new side has received, when it has everything that was sent before
    /// [`mark_old`](Self::mark_old), and before the old side is asked for everything.
    pub(super) fn mark_new(&mut self) {
        self.marks.1 = Some(self.held.len());
    }

    /// The old side now has everything that was sent before [`mark_new`](Self::mark_new). If it has delivered
    /// nothing since [`mark_old`](Self::mark_old), then both sides had received the same at that time, so the
    /// last events are pairs.
    pub(super) fn settle(&mut self, decide: &mut impl FnMut(Entry, Verdict)) {
        let (old, new) = std::mem::take(&mut self.marks);
        let (Some(old), Some(new)) = (old, new) else { return };
        if self.locked || old != self.lead.len() || new > old || new > self.held.len() {
            return;
        }
        match new {
            0 => self.lead.clear(),
            _ => self.lock(old - 1, new - 1, decide),
        }
        self.locked = true;
    }

    /// The new session was lost: what it brought comes again, or never. The record of the old side goes on,
    /// since it begins before any later session does. Returns the entries that are held.
    pub(super) fn new_lost(&mut self) -> impl Iterator<Item = Entry> + '_ {
        (self.locked, self.marks) = (false, (None, None));
        self.held.drain(..).map(|(_, entry)| entry)
    }

    /// The old session was lost, so the record has a gap from here on, and nothing before the gap says
    /// anything of what comes after it.
    pub(super) fn old_lost(&mut self) {
        self.lead.clear();
        (self.locked, self.complete, self.marks) = (false, false, (None, None));
    }

    /// Forgets the oldest fingerprint of the old side.
    pub(super) fn forget_oldest(&mut self) {
        self.lead.pop_front();
        (self.locked, self.complete, self.marks) = (false, false, (None, None));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An event of a true stream: a content, and whether it can occur only once.
    fn print(content: u64, unique: bool) -> Print {
        Print { hash: content, unique }
    }

    /// Runs a stream as two sessions see it, and returns the verdict on each event of the new one.
    #[derive(Debug, Default)]
    struct Bench {
        verdicts: std::collections::BTreeMap<Entry, Verdict>,
    }

    impl Bench {
        fn old(&mut self, stream: &mut Stream, print: Print) {
            stream.old(print, &mut |entry, verdict| self.note(entry, verdict));
        }

        fn receive(&mut self, stream: &mut Stream, print: Print, entry: Entry) {
            stream.new_held(print, entry, &mut |entry, verdict| self.note(entry, verdict));
        }

        fn cut(&mut self, stream: &mut Stream) {
            stream.cut(&mut |entry, verdict| self.note(entry, verdict));
        }

        fn settle(&mut self, stream: &mut Stream) {
            stream.settle(&mut |entry, verdict| self.note(entry, verdict));
        }

        fn note(&mut self, entry: Entry, verdict: Verdict) {
            assert_eq!(self.verdicts.insert(entry, verdict), None, "one verdict for each event");
        }

        fn all(&self) -> Vec<Verdict> {
            self.verdicts.values().copied().collect()
        }
    }

    use Verdict::{Double, Doubtful, New};

    fn unique(content: u64) -> Print {
        print(content, true)
    }

    fn plain(content: u64) -> Print {
        print(content, false)
    }

    #[test]
    fn an_event_that_occurs_once_locks_the_stream_and_repeats_then_match_in_pairs() {
        let (mut stream, mut bench) = (Stream::new(true), Bench::default());
        // The new session begins behind the first of three equal events.
        for print in [plain(7), plain(7), unique(1), plain(7)] {
            bench.old(&mut stream, print);
        }
        bench.receive(&mut stream, plain(7), 0);
        assert_eq!(bench.all(), [], "which of the two it is, is not known");
        bench.receive(&mut stream, unique(1), 1);
        bench.receive(&mut stream, plain(7), 2);
        assert_eq!(bench.all(), [Double, Double, Double]);
        // From here on the new side runs ahead.
        bench.receive(&mut stream, plain(7), 3);
        bench.receive(&mut stream, plain(7), 4);
        bench.old(&mut stream, plain(7));
        bench.cut(&mut stream);
        assert_eq!(bench.all()[3..], [Double, New]);
    }

    #[test]
    fn what_the_old_side_has_ahead_is_dropped_when_it_comes_after_the_cut() {
        let (mut stream, mut bench) = (Stream::new(true), Bench::default());
        bench.old(&mut stream, unique(1));
        bench.receive(&mut stream, unique(1), 0);
        for print in [plain(7), unique(2), plain(7)] {
            bench.old(&mut stream, print);
        }
        bench.cut(&mut stream);
        let after = [plain(7), unique(2), plain(7), plain(7)].map(|print| stream.new_after_cut(print));
        assert_eq!(after, [Double, Double, Double, New]);
    }

    #[test]
    fn what_cannot_be_decided_is_in_doubt() {
        let (mut stream, mut bench) = (Stream::new(true), Bench::default());
        bench.old(&mut stream, plain(7));
        bench.receive(&mut stream, plain(7), 0);
        bench.cut(&mut stream);
        assert_eq!(bench.all(), [Doubtful]);
        assert_eq!(stream.new_after_cut(plain(7)), Doubtful);
        // A message that the old side has not delivered shows that the new side has passed the old one.
        assert_eq!(stream.new_after_cut(unique(3)), New);
        assert_eq!(stream.new_after_cut(plain(7)), New);
        assert!(stream.is_done());
    }

    #[test]
    fn a_stream_that_was_quiet_while_both_sides_were_asked_is_aligned_by_position() {
        let (mut stream, mut bench) = (Stream::new(true), Bench::default());
        for print in [plain(1), plain(7), plain(7)] {
            bench.old(&mut stream, print);
        }
        bench.receive(&mut stream, plain(7), 0);
        stream.mark_old();
        stream.mark_new();
        // This one comes after the new side was asked.
        bench.receive(&mut stream, plain(7), 1);
        bench.settle(&mut stream);
        assert_eq!(bench.all(), [Double]);
        bench.cut(&mut stream);
        assert_eq!(bench.all(), [Double, New]);

        let (mut stream, mut bench) = (Stream::new(true), Bench::default());
        bench.old(&mut stream, plain(7));
        bench.receive(&mut stream, plain(7), 0);
        stream.mark_old();
        bench.old(&mut stream, plain(7));
        stream.mark_new();
        bench.settle(&mut stream);
        assert_eq!(bench.all(), [], "it was not quiet");
    }

    #[test]
    fn an_event_that_the_sessions_write_differently_is_in_doubt_and_the_next_one_is_not() {
        let (mut stream, mut bench) = (Stream::new(true), Bench::default());
        for print in [unique(1), plain(70), plain(8), unique(2)] {
            bench.old(&mut stream, print);
        }
        for (entry, print) in (0..).zip([unique(1), plain(71), plain(8), unique(2)]) {
            bench.receive(&mut stream, print, entry);
        }
        assert_eq!(bench.all(), [Double, Doubtful, Double, Double]);
        assert!(stream.is_locked());
        // The other way round: the new side is ahead.
        for (entry, print) in (4..).zip([plain(71), unique(3)]) {
            bench.receive(&mut stream, print, entry);
        }
        for print in [plain(70), unique(3)] {
            bench.old(&mut stream, print);
        }
        assert_eq!(bench.all()[4..], [Doubtful, Double]);
        // And after the cut-over.
        for print in [plain(70), unique(4)] {
            bench.old(&mut stream, print);
        }
        bench.cut(&mut stream);
        let after = [plain(71), unique(4), plain(71)].map(|print| stream.new_after_cut(print));
        assert_eq!(after, [Doubtful, Double, New]);
    }

    #[test]
    fn a_record_with_a_gap_proves_what_it_has_and_nothing_else() {
        let (mut stream, mut bench) = (Stream::new(true), Bench::default());
        bench.old(&mut stream, unique(1));
        stream.old_lost();
        bench.receive(&mut stream, unique(1), 0);
        bench.receive(&mut stream, unique(2), 1);
        bench.cut(&mut stream);
        assert_eq!(bench.all(), [Doubtful, Doubtful]);
        assert_eq!(stream.new_after_cut(unique(3)), Doubtful);
        stream.finish();
        assert_eq!(stream.new_after_cut(unique(4)), New);
    }

    /// One step of a race between two sessions.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Old,
        New,
        /// The new session is lost, and another one begins this many events behind the present of the stream.
        Lost(usize),
        MarkOld,
        MarkNew,
        Settle,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => Just(Step::Old),
            8 => Just(Step::New),
            1 => (0_usize..3).prop_map(Step::Lost),
            1 => Just(Step::MarkOld),
            1 => Just(Step::MarkNew),
            2 => Just(Step::Settle),
        ];
        prop::collection::vec(step, 0..120)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Whatever the stream, the beginning of the new session, the pace of each side and the moment of the
        /// cut-over: nothing is lost, nothing is delivered twice without a mark, the order is kept; and if no two
        /// events are equal, there is no mark.
        #[test]
        fn two_records_of_one_stream_are_joined_without_loss_or_unmarked_repetition(
            contents in prop::collection::vec((0_u64..4, any::<bool>()), 1..60),
            all_unique in any::<bool>(),
            starts_at in 0_usize..8,
            steps in steps(),
            late in 0_usize..10,
        ) {
            let truth: Vec<Print> = contents.iter().enumerate().map(|(at, (content, once))| {
                if all_unique || *once { unique(1000 + at as u64) } else { plain(*content) }
            }).collect();
            let (mut stream, mut bench) = (Stream::new(true), Bench::default());
            // The old side's record begins with the stream.
            let (mut old_at, mut begins_at) = (0, starts_at.min(truth.len()));
            let (mut new_at, mut entries) = (begins_at, Vec::new());
            // What each moment of the barrier requires of the sides, as the barrier does: the truth that was sent.
            let (mut sent_before_new, mut sent_before_old) = (None, None);
            for step in steps {
                match step {
                    Step::Old if old_at < truth.len() => {
                        bench.old(&mut stream, truth[old_at]);
                        old_at += 1;
                    }
                    Step::New if new_at < truth.len() => {
                        let entry = entries.len() as Entry;
                        entries.push(new_at);
                        bench.receive(&mut stream, truth[new_at], entry);
                        new_at += 1;
                    }
                    Step::Lost(ahead) => {
                        // Nobody has received more than was sent, and the later session begins after that.
                        begins_at = (old_at.max(new_at) + ahead).min(truth.len());
                        new_at = begins_at;
                        stream.new_lost().for_each(drop);
                        (sent_before_new, sent_before_old) = (None, None);
                    }
                    Step::MarkOld => {
                        stream.mark_old();
                        (sent_before_new, sent_before_old) = (Some(old_at), None);
                    }
                    // The answer of the new side comes behind what the old side had when it was asked.
                    Step::MarkNew if sent_before_new.is_some_and(|sent| sent <= new_at) => {
                        stream.mark_new();
                        sent_before_old = Some(new_at);
                    }
                    Step::Settle if sent_before_old.is_some_and(|sent| sent <= old_at) => {
                        bench.settle(&mut stream);
                        (sent_before_new, sent_before_old) = (None, None);
                    }
                    _ => {}
                }
            }
            // The last barrier: the old side has everything from before the new session.
            while old_at < begins_at {
                bench.old(&mut stream, truth[old_at]);
                old_at += 1;
            }
            let mut delivered: Vec<(usize, bool)> = (0..old_at).map(|at| (at, false)).collect();
            // Events in doubt before the cut-over come out then.
            let early = bench.verdicts.len();
            prop_assert!(bench.verdicts.values().all(|verdict| *verdict == Double), "{:?} of {early}", bench);
            bench.cut(&mut stream);
            for (entry, verdict) in bench.verdicts.iter() {
                match verdict {
                    Double => {}
                    New => delivered.push((entries[*entry as usize], false)),
                    Doubtful => delivered.push((entries[*entry as usize], true)),
                }
            }
            for (at, print) in truth.iter().enumerate().skip(new_at) {
                if at - new_at == late {
                    // The tail window may only end when the new side has caught up.
                    if new_at >= old_at { stream.finish(); }
                }
                match stream.new_after_cut(*print) {
                    Double => {}
                    New => delivered.push((at, false)),
                    Doubtful => delivered.push((at, true)),
                }
            }
            let unmarked: Vec<usize> =
                delivered.iter().filter(|(_, marked)| !marked).map(|(at, _)| *at).collect();
            prop_assert!(unmarked.windows(2).all(|pair| pair[0] < pair[1]), "twice or out of order: {delivered:?}");
            let all: std::collections::BTreeSet<usize> = delivered.iter().map(|(at, _)| *at).collect();
            prop_assert_eq!(all.len(), truth.len(), "lost: {:?}", delivered);
            if all_unique {
                prop_assert!(delivered.iter().all(|(_, marked)| !marked), "marked: {delivered:?}");
            }
        }

        /// Sessions that leave out events or write them differently: what only the new side has is never lost.
        #[test]
        fn nothing_is_lost_when_the_sessions_differ(
            contents in prop::collection::vec((0_u64..4, any::<bool>(), 0_u8..8, 0_u8..8), 1..60),
            steps in prop::collection::vec(any::<bool>(), 0..120),
        ) {
            // Each side writes one event in eight in its own way. An event that occurs once is known by its id.
            let of = |side: u64| -> Vec<Print> {
                contents.iter().enumerate().map(|(at, (content, once, old, new))| {
                    let differs = [*old, *new][side as usize] == 0;
                    match (*once, differs) {
                        (true, _) => unique(1000 + at as u64),
                        (false, true) => plain(100_000 * (side + 1) + at as u64),
                        (false, false) => plain(*content),
                    }
                }).collect()
            };
            let (old, new) = (of(0), of(1));
            let (mut stream, mut bench) = (Stream::new(true), Bench::default());
            let (mut old_at, mut new_at) = (0, 0);
            for is_old in steps {
                if is_old && old_at < old.len() {
                    bench.old(&mut stream, old[old_at]);
                    old_at += 1;
                } else if !is_old && new_at < new.len() {
                    bench.receive(&mut stream, new[new_at], new_at as Entry);
                    new_at += 1;
                }
            }
            bench.cut(&mut stream);
            let mut after: Vec<Verdict> = bench.all();
            prop_assert_eq!(after.len(), new_at, "each has its verdict at the cut-over");
            after.extend(new[new_at..].iter().map(|print| stream.new_after_cut(*print)));
            for (at, verdict) in after.iter().enumerate() {
                prop_assert!(at < old_at || *verdict != Double, "lost {at}: {after:?}");
                prop_assert!(at >= old_at || *verdict != New, "twice without a mark {at}: {after:?}");
            }
        }
    }
}
