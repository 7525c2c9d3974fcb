//! What the bot has outside of guilds: direct channels, entitlements and subscriptions.

use std::collections::VecDeque;

use fastrand::Rng;
use serde_json::{Value, json};

use super::ids::{self, Kind};
use super::member::{JOINED, Member};
use super::message::Room;

/// How many direct channels remember their messages. The least recently used one is forgotten first.
const MAX_DIRECT: usize = 32;
const MAX_ENTITLEMENTS: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Account {
    direct: VecDeque<Room>,
    entitlements: Vec<Entitlement>,
    subscriptions: Vec<Subscription>,
}

#[derive(Debug)]
struct Entitlement {
    id: u64,
    user: Member,
    ended: bool,
}

#[derive(Debug)]
struct Subscription {
    id: u64,
    entitlement: u64,
    user: Member,
    /// 0 is active, 1 is ending.
    status: u8,
}

impl Entitlement {
    fn object(&self) -> Value {
        json!({
            "id": self.id.to_string(), "sku_id": sku(), "application_id": ids::BOT.to_string(),
            "user_id": self.user.id().to_string(), "type": 8, "deleted": false, "starts_at": JOINED,
            "ends_at": self.ended.then_some("2026-10-01T00:00:00+00:00"), "consumed": false, "promotion_id": null,
            "gift_code_flags": 0,
        })
    }
}

impl Subscription {
    fn object(&self) -> Value {
        json!({
            "id": self.id.to_string(), "user_id": self.user.id().to_string(), "sku_ids": [sku()],
            "entitlement_ids": [self.entitlement.to_string()], "renewal_sku_ids": null,
            "current_period_start": JOINED, "current_period_end": "2026-10-01T00:00:00+00:00", "status": self.status,
            "canceled_at": null,
        })
    }
}

fn sku() -> String {
    ids::make(2, Kind::Other).to_string()
}

/// The id of the direct channel with a user; `None` for the bot itself.
pub(crate) fn direct_channel(user: Member) -> Option<u64> {
    match user {
        Member::Bot => None,
        Member::Human(index) => Some(ids::make(index, Kind::Direct)),
    }
}

/// The user of a direct channel; `None` if the id is not that of a direct channel.
pub(crate) fn user_of_direct(channel: u64) -> Option<Member> {
    ids::made_at(channel, Kind::Direct).map(Member::Human)
}

impl Account {
    /// The messages of the direct channel with this id.
    pub(crate) fn direct(&mut self, id: u64) -> &mut Room {
        let known = self.direct.iter().position(|room| room.id == id);
        let room = known.and_then(|place| self.direct.remove(place)).unwrap_or_else(|| Room::new(id));
        if self.direct.len() == MAX_DIRECT {
            self.direct.pop_front();
        }
        self.direct.push_back(room);
        let newest = self.direct.len() - 1;
        &mut self.direct[newest]
    }

    pub(super) fn create_entitlement(&mut self, number: u64, user: Member) -> Value {
        if self.entitlements.len() >= MAX_ENTITLEMENTS {
            return Value::Null;
        }
        let entitlement = Entitlement { id: ids::made_by(number, Kind::Other), user, ended: false };
        let data = entitlement.object();
        self.entitlements.push(entitlement);
        data
    }

    /// Ends an entitlement. That of a subscription is updated only at its end (GW-269).
    pub(super) fn end_entitlement(&mut self) -> Value {
        let Some(entitlement) = self.entitlements.iter_mut().find(|one| !one.ended) else {
            return Value::Null;
        };
        entitlement.ended = true;
        entitlement.object()
    }

    pub(super) fn delete_entitlement(&mut self, random: &mut Rng) -> Value {
        let free = |one: &Entitlement| self.subscriptions.iter().all(|other| other.entitlement != one.id);
        let free: Vec<usize> =
            (0..self.entitlements.len()).filter(|at| free(&self.entitlements[*at])).collect();
        random.choice(free).map_or(Value::Null, |place| self.entitlements.remove(place).object())
    }

    pub(super) fn create_subscription(&mut self, number: u64) -> Value {
        let taken = |id: u64| self.subscriptions.iter().any(|subscription| subscription.entitlement == id);
        let Some(entitlement) = self.entitlements.iter().find(|one| !one.ended && !taken(one.id)) else {
            return Value::Null;
        };
        let id = ids::made_by(number, Kind::Other);
        let subscription =
            Subscription { id, entitlement: entitlement.id, user: entitlement.user, status: 0 };
        let data = subscription.object();
        self.subscriptions.push(subscription);
        data
    }

    pub(super) fn update_subscription(&mut self, random: &mut Rng) -> Value {
        let Some(subscription) = random.choice(&mut self.subscriptions) else { return Value::Null };
        subscription.status ^= 1;
        subscription.object()
    }

    pub(super) fn delete_subscription(&mut self, random: &mut Rng) -> Value {
        if self.subscriptions.is_empty() {
            return Value::Null;
        }
        self.subscriptions.remove(random.usize(..self.subscriptions.len())).object()
    }

    pub(crate) fn entitlements(&self) -> Value {
        self.entitlements.iter().map(Entitlement::object).collect::<Vec<_>>().into()
    }
}
