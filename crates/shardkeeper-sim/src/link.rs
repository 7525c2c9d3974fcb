//! What the rest of the simulator can do to one live connection.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How many control payloads may wait for a client that takes none.
const CAPACITY: usize = 256;

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: u64,
    state: Mutex<State>,
    writer: Notify,
    /// For the reader: the connection is cut.
    pub(crate) cut: Notify,
    /// For the reader: it shall read no more.
    pub(crate) stalled: Notify,
}

#[derive(Debug, Default)]
struct State {
    out: VecDeque<Out>,
    later: VecDeque<Out>,
    /// The session whose dispatches are written, and up to where they are.
    feed: Option<Feed>,
    /// Op 9 was sent, and no login has followed.
    logged_out: bool,
    stop_acking: bool,
    silent: bool,
    half_open: bool,
    stalled: bool,
    /// Bytes per second that are written.
    pace: Option<u32>,
    /// Payload compression was asked for.
    packed: bool,
    /// The next two dispatches change places.
    reorder: bool,
    /// Heartbeats that were asked for and have not come.
    requested: u32,
    cut: bool,
    closing: bool,
    /// The connection is over, or about to be at the client's wish.
    gone: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Feed {
    pub(crate) session: String,
    pub(crate) cursor: u64,
}

/// Something to write that is no dispatch.
#[derive(Clone, Debug)]
pub(crate) enum Out {
    Text(String),
    /// Op 9; of this session, if it had one.
    InvalidSession {
        session: Option<String>,
        resumable: bool,
    },
    Corrupt,
    Truncate,
    Close {
        code: u16,
        reason: &'static str,
    },
}

/// What the writer does next.
#[derive(Debug)]
pub(crate) enum Next {
    Control(Out),
    Dispatches(Feed),
    Wait,
    Cut,
}

impl Link {
    pub(crate) fn new(id: u64) -> Self {
        Self {
            id,
            state: Mutex::default(),
            writer: Notify::new(),
            cut: Notify::new(),
            stalled: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before any dispatch that waits.
    pub(crate) fn send(&self, out: Out) {
        let mut state = self.state();
        if state.out.len() < CAPACITY {
            state.out.push_back(out);
        } else {
            state.cut = true;
        }
        drop(state);
        self.wake();
    }

    /// After everything that the session holds by now.
    pub(crate) fn send_later(&self, out: Out) {
        self.state().later.push_back(out);
        self.wake();
    }

    pub(crate) fn feed(&self, feed: Option<Feed>) {
        let mut state = self.state();
        state.logged_out &= feed.is_none();
        state.feed = feed;
        drop(state);
        self.wake();
    }

    pub(crate) fn feed_now(&self) -> Option<Feed> {
        self.state().feed.clone()
    }

    /// Op 9 goes out. Nothing of a session follows until the client logs in again.
    pub(crate) fn log_out(&self) {
        let mut state = self.state();
        state.logged_out = true;
        state.feed = None;
    }

    pub(crate) fn is_logged_out(&self) -> bool {
        self.state().logged_out
    }

    pub(crate) fn advance(&self, to: u64) {
        if let Some(feed) = &mut self.state().feed {
            feed.cursor = to;
        }
    }

    pub(crate) fn stop_acking(&self) {
        self.state().stop_acking = true;
    }

    pub(crate) fn silence(&self) {
        self.state().silent = true;
    }

    pub(crate) fn stall_reading(&self) {
        self.state().stalled = true;
        self.stalled.notify_one();
    }

    pub(crate) fn is_stalled(&self) -> bool {
        let state = self.state();
        state.stalled || state.half_open
    }

    pub(crate) fn slow_writing(&self, bytes_per_second: u32) {
        self.state().pace = Some(bytes_per_second.max(1));
    }

    pub(crate) fn pace(&self) -> Option<u32> {
        self.state().pace
    }

    pub(crate) fn pack(&self) {
        self.state().packed = true;
    }

    pub(crate) fn is_packed(&self) -> bool {
        self.state().packed
    }

    pub(crate) fn reorder(&self) {
        self.state().reorder = true;
    }

    pub(crate) fn reorders(&self) -> bool {
        self.state().reorder
    }

    pub(crate) fn reordered(&self) {
        self.state().reorder = false;
    }

    /// Asks for a heartbeat.
    pub(crate) fn request_heartbeat(&self) {
        self.state().requested += 1;
        self.send(Out::Text(r#"{"t":null,"s":null,"op":1,"d":null}"#.to_owned()));
    }

    /// Whether the heartbeat that came may be one that was asked for.
    pub(crate) fn take_requested(&self) -> bool {
        let mut state = self.state();
        let requested = state.requested > 0;
        state.requested = state.requested.saturating_sub(1);
        requested
    }

    pub(crate) fn half_open(&self) {
        self.state().half_open = true;
        self.wake();
        self.stalled.notify_one();
    }

    pub(crate) fn cut(&self) {
        self.state().cut = true;
        self.wake();
        self.cut.notify_one();
    }

    pub(crate) fn acks(&self) -> bool {
        !self.state().stop_acking
    }

    pub(crate) fn is_half_open(&self) -> bool {
        self.state().half_open
    }

    /// Our close frame goes out: the client's one is only its echo.
    pub(crate) fn closing(&self) {
        self.state().closing = true;
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.state().closing
    }

    /// The client closes, or is gone.
    pub(crate) fn leave(&self) {
        self.state().gone = true;
    }

    pub(crate) fn is_gone(&self) -> bool {
        let state = self.state();
        state.gone || state.cut || state.closing || state.half_open
    }

    pub(crate) fn wake(&self) {
        self.writer.notify_one();
    }

    pub(crate) async fn woken(&self) {
        self.writer.notified().await;
    }

    /// `drained` says that the last answer was to write dispatches, and there were none.
    pub(crate) fn next(&self, drained: bool) -> Next {
        let mut state = self.state();
        if state.cut {
            return Next::Cut;
        }
        if state.half_open {
            return Next::Wait;
        }
        if let Some(out) = state.out.pop_front() {
            return Next::Control(out);
        }
        if let Some(feed) = state.feed.clone().filter(|_| !drained && !state.silent) {
            return Next::Dispatches(feed);
        }
        match state.later.pop_front() {
            Some(out) => Next::Control(out),
            None => Next::Wait,
        }
    }
}
