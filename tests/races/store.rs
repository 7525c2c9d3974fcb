//! The session store, while keepers are killed and processes follow each other.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use shardkeeper::actor::KeeperMessage;
use shardkeeper::config::RestartPolicy;
use shardkeeper::store::{Changes, FileStore, MemoryStore, SessionStore, StoreError, Stored};
use shardkeeper::{Intents, Shardkeeper, Topic};
use shardkeeper_tests::races::{Round, repeat};
use shardkeeper_tests::service;
use tokio::time::sleep;

fn kill_keeper(keeper: &Shardkeeper) {
    service::<KeeperMessage>(keeper).into_iter().for_each(|keeper| keeper.kill());
}

/// A slow store that detects overlapping calls.
struct Witness {
    store: MemoryStore,
    round: Round,
    under_way: AtomicU32,
    overlapped: AtomicBool,
}

struct Call<'a>(&'a Witness);

impl Witness {
    fn call(&self) -> Call<'_> {
        if self.under_way.fetch_add(1, Ordering::SeqCst) > 0 {
            self.overlapped.store(true, Ordering::SeqCst);
        }
        Call(self)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl SessionStore for Witness {
    fn load(&self) -> BoxFuture<'_, Result<Stored, StoreError>> {
        async {
            let _call = self.call();
            self.store.load().await
        }
        .boxed()
    }

    fn save(&self, changes: Changes) -> BoxFuture<'_, Result<(), StoreError>> {
        async {
            let _call = self.call();
            for _ in 0..4 {
                self.round.stir().await;
                // The loop takes about as long as encoding the records would.
                (0..5_000).for_each(|_| std::hint::spin_loop());
            }
            self.store.save(changes).await
        }
        .boxed()
    }
}

#[test]
fn saves_of_keepers_that_are_killed_do_not_overlap() {
    repeat(60, |round| async move {
        let simulator = round.simulator(4, |config| config.max_concurrency = 4);
        let store = Arc::new(Witness {
            store: MemoryStore::default(),
            round: round.clone(),
            under_way: AtomicU32::new(0),
            overlapped: AtomicBool::new(false),
        });
        let mut policy = RestartPolicy::default();
        policy.quarantine_after = 1_000_000;
        let builder = round.bot(&simulator).restart_policy(policy).session_store(store.clone());
        let keeper = builder.start().await.unwrap();
        simulator.wait_until(|report| report.ready_sessions == 4).await;
        for _ in 0..5 {
            simulator.emit(0, 1);
            round.stir().await;
            kill_keeper(&keeper);
            sleep(Duration::from_millis(1)).await;
        }
        keeper.detach().await.unwrap();
        assert!(!store.overlapped.load(Ordering::SeqCst), "two calls overlap");
    });
}

/// A directory of this test, removed after it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("shardkeeper-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_file_store_can_be_opened_again_as_soon_as_its_manager_has_ended() {
    let directory = Directory::new("races");
    let path = directory.0.join("sessions");
    repeat(40, move |round| {
        let path = path.clone();
        async move {
            let simulator = round.simulator(2, |_| {});
            let mut random = round.rng();
            for _ in 0..3 {
                let store = FileStore::open(&path).unwrap();
                let builder = round.bot(&simulator).session_store(Arc::new(store));
                let mut events = builder.subscribe(Topic::all());
                let keeper = builder.start().await.unwrap();
                tokio::spawn(async move { while events.next().await.is_some() {} });
                if random.bool() {
                    simulator.wait_until(|report| report.ready_sessions == 2).await;
                }
                simulator.emit(0, 1);
                round.stir().await;
                if random.bool() {
                    kill_keeper(&keeper);
                }
                match random.u8(0..3) {
                    0 => keeper.stop().await,
                    1 => drop(keeper.detach().await),
                    _ => {
                        let detaching = keeper.clone();
                        tokio::spawn(async move { detaching.detach().await.unwrap() });
                        keeper.exit_reason().await;
                    }
                }
            }
        }
    });
}

#[test]
fn a_file_store_can_be_opened_again_as_soon_as_a_start_has_failed() {
    let directory = Directory::new("refused");
    let path = directory.0.join("sessions");
    repeat(20, move |round| {
        let path = path.clone();
        async move {
            let simulator = round.simulator(1, |_| {});
            for _ in 0..2 {
                let store = FileStore::open(&path).unwrap();
                let builder = Shardkeeper::builder("wrong-token", Intents::GUILDS);
                let builder = builder
                    .api_url(simulator.api_url())
                    .dialer(round.stirred(shardkeeper_tests::SimDialer(simulator.clone())));
                builder.session_store(Arc::new(store)).start().await.unwrap_err();
            }
        }
    });
}
