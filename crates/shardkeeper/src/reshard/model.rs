//! The phases of a reshard in every interleaving: two groups of one old and one new shard, with faults, an
//! operator, a session store that is late, and a kill of the process at each step.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use shardkeeper_proto::ShardId;
use shardkeeper_proto::close::CloseCode;
use stateright::{Checker, Model, Property};

use super::phases::{Action, Input, Reading, Reshard, Side, Spans};
use super::plan::ReshardGroup;

const GROUPS: usize = 2;
/// All that happens in time happens now; what is late comes after every deadline.
static NOW: LazyLock<Instant> = LazyLock::new(Instant::now);

fn spans(voice: Option<Duration>) -> Spans {
    let second = Duration::from_secs(1);
    Spans { group: second, drain: second, pause: Duration::ZERO, voice }
}

fn group(residue: usize) -> ReshardGroup {
    let shard = ShardId(u32::try_from(residue).unwrap());
    ReshardGroup { residue: shard.0, old: vec![shard], new: vec![shard] }
}

fn index(group: &ReshardGroup) -> usize {
    group.residue as usize
}

/// A world with these voice rules, and this much trouble.
#[derive(Clone)]
struct Bot {
    voice: Option<Duration>,
    crashes: u8,
    faults: u8,
    orders: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Old {
    Up,
    Down,
    Closing,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum New {
    Absent,
    Starting,
    Warm,
    Closing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shards {
    old: Old,
    new: New,
    owner: Side,
    /// The new shard has a session to resume.
    session: bool,
    /// An Identify was spent whose session should still exist.
    identified: bool,
}

/// The layout and sessions as the session keeper sees them, and as they are on disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Saved {
    layout: Layout,
    sessions: [bool; GROUPS],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Layout {
    Old,
    HalfWay(BTreeSet<u32>),
    New,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    reshard: Option<Reshard>,
    layout: Layout,
    disk: Saved,
    /// The save that was asked for and is not on disk yet.
    unsaved: Option<u64>,
    shards: [Shards; GROUPS],
    affordable: bool,
    crashes: u8,
    faults: u8,
    orders: u8,
    /// The first rule that was broken.
    broken: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    Look { good: bool, in_voice: bool, late: bool },
    NewReady(usize),
    OldDown(usize),
    OldUp(usize),
    SessionLost(usize),
    Refused(usize),
    Write,
    Gone(usize, Side),
    Budget,
    Order(Input),
    Kill,
}

impl World {
    fn saved(&self) -> Saved {
        Saved { layout: self.layout.clone(), sessions: self.shards.map(|shards| shards.session) }
    }

    fn check(&mut self, holds: bool, rule: &'static str) {
        if !holds {
            self.broken.get_or_insert(rule);
        }
    }

    fn moved(&self) -> BTreeSet<u32> {
        match &self.layout {
            Layout::HalfWay(moved) => moved.clone(),
            Layout::Old => BTreeSet::new(),
            Layout::New => (0..2).collect(),
        }
    }

    fn reading(&self, good: bool, in_voice: bool) -> Reading {
        let group = self.reshard.as_ref().and_then(|reshard| reshard.group());
        let Some(shards) = group.map(|group| self.shards[index(group)]) else { return Reading::default() };
        Reading {
            affordable: self.affordable,
            in_voice,
            warm: shards.new == New::Warm,
            level: shards.old != Old::Down,
            frozen: shards.old == Old::Down && good,
            drained: good,
        }
    }

    /// Gives the machine an input, and carries out what it asks for. A cut-over works if `good`.
    fn input(&mut self, now: Instant, input: Input, good: bool) {
        let Some(mut reshard) = self.reshard.take() else { return };
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for action in reshard.input(now, input) {
                inputs.extend(self.carry_out(action, good));
            }
        }
        self.reshard = Some(reshard);
    }

    fn carry_out(&mut self, action: Action, good: bool) -> Option<Input> {
        match action {
            Action::Warm(group) => {
                let this = index(&group);
                let others = self.shards.iter().enumerate().filter(|(other, _)| *other != this);
                let alone = others.clone().all(|(_, shards)| {
                    (shards.new == New::Absent) == (shards.owner == Side::Old)
                        && (shards.old == Old::Gone) == (shards.owner == Side::New)
                });
                self.check(alone, "one group at a time has shards of both sides");
                self.check(self.shards[this].new == New::Absent, "a new shard is started once");
                self.shards[this].new = New::Starting;
            }
            Action::CutOver(group) => {
                let shards = &mut self.shards[index(&group)];
                let done = good && shards.new == New::Warm;
                if done {
                    self.check(self.shards[index(&group)].owner == Side::Old, "a group is cut over once");
                    self.shards[index(&group)].owner = Side::New;
                    let mut moved = self.moved();
                    moved.insert(group.residue);
                    self.layout = Layout::HalfWay(moved);
                }
                return Some(Input::CutOver(done));
            }
            Action::Save(number) => self.unsaved = Some(number),
            Action::StopOld(group) => {
                let saved = match &self.disk.layout {
                    Layout::HalfWay(moved) => moved.contains(&group.residue),
                    Layout::Old => false,
                    Layout::New => true,
                };
                self.check(saved, "no old shard stops before its group's ownership is saved");
                self.shards[index(&group)].old = Old::Closing;
            }
            Action::StopNew(group) => {
                let owner = self.shards[index(&group)].owner;
                self.check(owner == Side::Old, "no new shard stops after the cut-over");
                self.shards[index(&group)].new = New::Closing;
            }
            Action::Finish => {
                let finished = self.shards.iter().all(|shards| shards.old == Old::Gone);
                self.check(finished, "a reshard is finished once every old shard has closed");
                self.layout = Layout::New;
            }
            Action::Withdraw(_) => {
                let untouched = self
                    .shards
                    .iter()
                    .all(|shards| shards.owner == Side::Old && matches!(shards.old, Old::Up | Old::Down));
                self.check(untouched, "a withdrawn reshard leaves the old shards untouched");
                self.layout = Layout::Old;
            }
            Action::Announce(..) | Action::Halt(_) => {}
        }
        None
    }

    fn happens(&mut self, event: Event, voice: Option<Duration>) {
        let now = *NOW;
        match event {
            Event::Look { good, in_voice, late } => {
                let at = if late { now + Duration::from_secs(3600) } else { now };
                let reading = self.reading(good, in_voice);
                self.input(at, Input::Look(reading), good);
            }
            Event::NewReady(group) => {
                let shards = &mut self.shards[group];
                let wasted = !shards.session && shards.identified;
                (shards.new, shards.session, shards.identified) = (New::Warm, true, true);
                self.check(!wasted, "no Identify but those of unfinished shards is spent twice");
            }
            Event::OldDown(group) => {
                self.shards[group].old = Old::Down;
                self.faults -= 1;
            }
            Event::OldUp(group) => self.shards[group].old = Old::Up,
            Event::SessionLost(group) => {
                let shards = &mut self.shards[group];
                (shards.new, shards.session, shards.identified) = (New::Starting, false, false);
                self.faults -= 1;
            }
            Event::Refused(_) => {
                self.faults -= 1;
                self.input(now, Input::Refused(CloseCode(4011)), true);
            }
            Event::Write => {
                self.disk = self.saved();
                if let Some(number) = self.unsaved.take() {
                    self.input(now, Input::Saved(number), true);
                }
            }
            Event::Gone(group, side) => {
                let shards = &mut self.shards[group];
                match side {
                    Side::Old => shards.old = Old::Gone,
                    Side::New => {
                        (shards.new, shards.session, shards.identified) = (New::Absent, false, false);
                    }
                }
                self.input(now, Input::Gone(side), true);
            }
            Event::Budget => {
                self.affordable = !self.affordable;
                self.faults -= u8::from(!self.affordable);
            }
            Event::Order(order) => {
                self.orders -= 1;
                self.input(now, order, true);
            }
            Event::Kill => self.restart(voice),
        }
        let running = self.shards.iter().all(|shards| match shards.owner {
            Side::Old => matches!(shards.old, Old::Up | Old::Down),
            Side::New => matches!(shards.new, New::Starting | New::Warm),
        });
        self.check(running, "the side that owns the guilds runs");
        let moved = self.moved();
        let agrees = self
            .shards
            .iter()
            .zip(0..)
            .all(|(shards, residue)| (shards.owner == Side::New) == moved.contains(&residue));
        self.check(agrees, "the layout says who owns the guilds");
    }

    /// The process is killed, and another one starts from the disk.
    fn restart(&mut self, voice: Option<Duration>) {
        self.crashes -= 1;
        let Saved { layout, sessions } = self.disk.clone();
        self.layout = layout;
        self.unsaved = None;
        let moved = self.moved();
        for (group, shards) in self.shards.iter_mut().enumerate() {
            let has_moved = moved.contains(&u32::try_from(group).unwrap());
            // The Identify of a session that was not saved in time is lost.
            let identified = shards.identified && sessions[group];
            *shards = match has_moved {
                true => Shards { old: Old::Gone, new: New::Starting, owner: Side::New, ..*shards },
                false => Shards { old: Old::Up, new: New::Absent, owner: Side::Old, ..*shards },
            };
            (shards.session, shards.identified) = (sessions[group], identified);
        }
        self.reshard = match self.layout {
            Layout::HalfWay(_) => {
                let pending = (0..GROUPS).map(group).filter(|group| !moved.contains(&group.residue));
                Some(Reshard::new(pending.collect(), moved, spans(voice), *NOW))
            }
            Layout::Old | Layout::New => None,
        };
    }

    /// Whether the reshard ends if from now on nothing goes wrong and the operator resumes it.
    fn ends(&self, voice: Option<Duration>) -> bool {
        let mut world = self.clone();
        for _ in 0..20 {
            if world.reshard.as_ref().is_none_or(Reshard::is_over) {
                return world.broken.is_none();
            }
            if !world.affordable {
                world.happens(Event::Budget, voice);
            }
            world.input(*NOW, Input::Resume, true);
            world.happens(Event::Look { good: true, in_voice: false, late: false }, voice);
            for group in 0..GROUPS {
                let shards = world.shards[group];
                if shards.old == Old::Down {
                    world.happens(Event::OldUp(group), voice);
                }
                if shards.old == Old::Closing {
                    world.happens(Event::Gone(group, Side::Old), voice);
                }
                match shards.new {
                    New::Starting => world.happens(Event::NewReady(group), voice),
                    New::Closing => world.happens(Event::Gone(group, Side::New), voice),
                    New::Absent | New::Warm => {}
                }
            }
            world.happens(Event::Write, voice);
        }
        false
    }
}

impl Model for Bot {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        let shards =
            Shards { old: Old::Up, new: New::Absent, owner: Side::Old, session: false, identified: false };
        let groups = (0..GROUPS).map(group).collect();
        vec![World {
            reshard: Some(Reshard::new(groups, BTreeSet::new(), spans(self.voice), *NOW)),
            layout: Layout::HalfWay(BTreeSet::new()),
            disk: Saved { layout: Layout::Old, sessions: [false; GROUPS] },
            unsaved: None,
            shards: [shards; GROUPS],
            affordable: true,
            crashes: self.crashes,
            faults: self.faults,
            orders: self.orders,
            broken: None,
        }]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        for (good, in_voice, late) in [
            (true, false, false),
            (false, false, false),
            (true, true, false),
            (false, false, true),
            (true, true, true),
        ] {
            events.push(Event::Look { good, in_voice, late });
        }
        for (group, shards) in world.shards.iter().enumerate() {
            match shards.old {
                Old::Up if world.faults > 0 => events.push(Event::OldDown(group)),
                Old::Down => events.push(Event::OldUp(group)),
                Old::Closing => events.push(Event::Gone(group, Side::Old)),
                Old::Up | Old::Gone => {}
            }
            match shards.new {
                New::Starting => events.push(Event::NewReady(group)),
                New::Warm if world.faults > 0 => events.push(Event::SessionLost(group)),
                New::Closing => events.push(Event::Gone(group, Side::New)),
                New::Absent | New::Warm => {}
            }
            // Discord refuses an Identify, which a shard with a session does not send.
            if world.faults > 0 && shards.new == New::Starting && !shards.session && shards.owner == Side::Old
            {
                events.push(Event::Refused(group));
            }
        }
        if world.unsaved.is_some() || world.disk != world.saved() {
            events.push(Event::Write);
        }
        if world.faults > 0 || !world.affordable {
            events.push(Event::Budget);
        }
        if world.orders > 0 {
            events.extend([Input::Pause, Input::Resume, Input::Abort].map(Event::Order));
        }
        if world.crashes > 0 {
            events.push(Event::Kill);
        }
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        let mut next = world.clone();
        next.happens(event, self.voice);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no rule is broken", |_, world: &World| world.broken.is_none()),
            Property::always("a reshard can always end", |bot: &Self, world: &World| world.ends(bot.voice)),
            Property::sometimes("it finishes", |_, world: &World| world.disk.layout == Layout::New),
            Property::sometimes("it is withdrawn", |_, world: &World| {
                world.layout == Layout::Old && world.unsaved.is_some()
            }),
            Property::sometimes("it stands half way", |_, world: &World| {
                world.reshard.as_ref().is_some_and(|reshard| reshard.halted().is_some())
            }),
        ]
    }
}

fn check(bot: Bot) {
    let checker = bot.checker().threads(2).spawn_bfs().join();
    println!("{} states, {} of them distinct", checker.state_count(), checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn every_interleaving_of_two_groups_with_a_kill_at_each_step_keeps_the_invariants() {
    check(Bot { voice: Some(Duration::from_secs(1)), crashes: 2, faults: 1, orders: 1 });
}

#[test]
fn every_interleaving_with_faults_and_orders_keeps_the_invariants() {
    check(Bot { voice: None, crashes: 2, faults: 2, orders: 2 });
}
