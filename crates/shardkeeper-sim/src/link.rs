//! The controls of one live Gateway connection, for the rest of the simulator.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// How many control payloads may wait for a client that does not read. One more cuts the connection.
const CAPACITY: usize = 256;

/// The controls of a connection. The reader and the writer of the connection follow them.
#[derive(Debug)]
pub(crate) struct Link {
    /// The number of the connection, from 1.
    pub(crate) id: u64,
    state: Mutex<State>,
    /// Wakes the writer.
    writer: Notify,
    /// Tells the reader that the connection is cut.
    pub(crate) cut: Notify,
    /// Tells the reader to stop reading.
    pub(crate) stalled: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Written before dispatches.
    out: VecDeque<Out>,
    /// Written once no dispatch is waiting.
    later: VecDeque<Out>,
    /// The session whose dispatches are written, and how far they are.
    feed: Option<Feed>,
    /// When the writer asks for [`Link::next`] again without being woken.
    due: Option<Instant>,
    /// Whether op 9 was sent, and no login has followed.
    logged_out: bool,
    stop_acking: bool,
    silent: bool,
    half_open: bool,
    stalled: bool,
    /// How many bytes are written per second; `None` for no limit.
    pace: Option<u32>,
    /// Whether the client has asked for payload compression.
    packed: bool,
    /// Whether the next two dispatches are to be sent in reverse order.
    reorder: bool,
    /// How many heartbeats were requested with op 1 and have not come.
    requested: u32,
    cut: bool,
    closing: bool,
    /// Whether the connection has ended, or the client has sent a close frame.
    gone: bool,
}

/// A session, and the last sequence of it that was written.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    pub(crate) session: String,
    pub(crate) cursor: u64,
}

/// A payload without a sequence.
pub(crate) fn text(op: u8, data: &str) -> Out {
    Out::Text(format!(r#"{{"t":null,"s":null,"op":{op},"d":{data}}}"#))
}

/// Something to write other than a dispatch.
#[derive(Clone, Debug)]
pub(crate) enum Out {
    Text(String),
    /// Op 9, in this session or, for a refused login, in none.
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

/// What the writer has to do next.
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

    /// Writes this before the waiting dispatches.
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

    /// Writes this after all waiting dispatches.
    pub(crate) fn send_later(&self, out: Out) {
        self.state().later.push_back(out);
        self.wake();
    }

    /// Sets the session whose dispatches are written.
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

    /// Stops the dispatches when op 9 is sent, until the client logs in again.
    pub(crate) fn log_out(&self) {
        let mut state = self.state();
        state.logged_out = true;
        state.feed = None;
    }

    pub(crate) fn is_logged_out(&self) -> bool {
        self.state().logged_out
    }

    /// Notes that the dispatches up to this sequence are written.
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

    /// Sends op 1, which requests a heartbeat.
    pub(crate) fn request_heartbeat(&self) {
        self.state().requested += 1;
        self.send(Out::Text(r#"{"t":null,"s":null,"op":1,"d":null}"#.to_owned()));
    }

    /// Whether a heartbeat that has come may be the answer to an op 1. Each op 1 counts once.
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

    /// Notes that our close frame is sent, so that a close frame of the client is the answer to it.
    pub(crate) fn closing(&self) {
        self.state().closing = true;
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.state().closing
    }

    /// Notes that the client has closed the connection, or that the connection has ended.
    pub(crate) fn leave(&self) {
        self.state().gone = true;
    }

    /// Whether the connection has ended or is about to.
    pub(crate) fn is_gone(&self) -> bool {
        let state = self.state();
        state.gone || state.cut || state.closing || state.half_open
    }

    /// Lets the writer ask for [`Self::next`] again.
    pub(crate) fn wake(&self) {
        self.writer.notify_one();
    }

    /// Sets when the writer asks again without being woken.
    pub(crate) fn due(&self, at: Option<Instant>) {
        self.state().due = at;
    }

    /// Waits for [`Self::wake`], or until something is due. Only the writer calls this.
    pub(crate) async fn woken(&self) {
        let due = self.state().due.take();
        match due {
            Some(at) => tokio::select! {
                biased;
                () = self.writer.notified() => {}
                () = sleep_until(at) => {}
            },
            None => self.writer.notified().await,
        }
    }

    /// What the writer has to do next. `drained` means that the last answer was to write dispatches, and none
    /// were waiting.
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
