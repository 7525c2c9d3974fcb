//! Resolves host names: one look-up at a time per host, with a short cache.
//!
//! The system's resolver blocks a thread per look-up. Without this cache, thousands of shards that reconnect
//! together would fill the runtime's pool of blocking threads, and everything else that needs one (a session
//! store, for example) would wait behind them.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::Instant;

/// How long an answer is used, counted from the start of its look-up. The system's resolver does not return a
/// TTL; Discord's records have 300 s. 10 s are long enough that a mass reconnect causes a few look-ups
/// instead of one per shard, and shorter than a handful of attempts, so that a host which moves is found
/// again quickly.
const LIFETIME: Duration = Duration::from_secs(10);

type Answer = Result<Arc<[SocketAddr]>, Arc<io::Error>>;
type Asking = Shared<BoxFuture<'static, Answer>>;

/// Looks up the addresses of a host name with the system's resolver, in the order of preference. Their ports
/// are ignored.
type LookUp = Box<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The cache of look-ups, by host name.
pub(crate) struct Resolver {
    look_up: LookUp,
    known: Mutex<HashMap<String, Known>>,
}

struct Known {
    since: Instant,
    asking: Asking,
}

impl Resolver {
    /// Creates a cache in front of the system's resolver.
    pub(crate) fn system() -> Self {
        Self::new(Box::new(|host| {
            async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) }.boxed()
        }))
    }

    fn new(look_up: LookUp) -> Self {
        Self { look_up, known: Mutex::default() }
    }

    /// The addresses of a host, with this port.
    ///
    /// # Errors
    ///
    /// The error of the look-up. Every caller that waited for this look-up gets the same error; the next
    /// caller starts a new one.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not affect other callers, who keep waiting for the same look-up.
    pub(crate) async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let asking = self.ask(host);
        match asking.clone().await {
            Ok(addresses) => {
                let with_port = |address: &SocketAddr| {
                    let mut address = *address;
                    address.set_port(port);
                    address
                };
                Ok(addresses.iter().map(with_port).collect())
            }
            Err(error) => {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                if known.get(host).is_some_and(|known| known.asking.ptr_eq(&asking)) {
                    known.remove(host);
                }
                drop(known);
                Err(io::Error::new(error.kind(), error))
            }
        }
    }

    /// The look-up that is running or has answered, or a new one.
    fn ask(&self, host: &str) -> Asking {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(host).filter(|known| now - known.since < LIFETIME) {
            return known.asking.clone();
        }
        // Removing expired entries here bounds the cache to the hosts requested within one lifetime.
        known.retain(|_, known| now - known.since < LIFETIME);
        let look_up = (self.look_up)(host.to_owned());
        let asking = async move { look_up.await.map(Arc::from).map_err(Arc::new) }.boxed().shared();
        known.insert(host.to_owned(), Known { since: now, asking: asking.clone() });
        asking
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// A resolver that answers when the test permits and counts the look-ups.
    struct Bench {
        resolver: Arc<Resolver>,
        asked: Arc<AtomicUsize>,
        may_answer: Arc<Semaphore>,
    }

    fn bench(answer: fn(usize) -> io::Result<Vec<SocketAddr>>) -> Bench {
        let (asked, may_answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (count, gate) = (Arc::clone(&asked), Arc::clone(&may_answer));
        let resolver = Resolver::new(Box::new(move |_| {
            let number = count.fetch_add(1, Ordering::SeqCst);
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.expect("the semaphore is never closed").forget();
                answer(number)
            }
            .boxed()
        }));
        Bench { resolver: Arc::new(resolver), asked, may_answer }
    }

    impl Bench {
        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    fn two(number: usize) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![([10, 0, 0, number as u8], 0).into(), ([10, 0, 1, number as u8], 0).into()])
    }

    fn none(_: usize) -> io::Result<Vec<SocketAddr>> {
        Err(io::Error::new(io::ErrorKind::NotFound, "no such host"))
    }

    #[tokio::test(start_paused = true)]
    async fn two_thousand_dials_are_one_look_up_and_keep_all_addresses() {
        let bench = bench(two);
        let mut dials = join_all((0..2000).map(|port| bench.resolver.addresses("gateway.test", port)));
        assert!((&mut dials).now_or_never().is_none(), "all calls wait");
        bench.may_answer.add_permits(1);
        for (port, addresses) in (0..).zip(dials.await) {
            let expected: [SocketAddr; 2] = [([10, 0, 0, 0], port).into(), ([10, 0, 1, 0], port).into()];
            assert_eq!(addresses.unwrap(), expected);
        }
        assert_eq!(bench.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_serves_for_a_while_and_per_host() {
        let bench = bench(two);
        bench.may_answer.add_permits(10);
        let first = bench.resolver.addresses("a.test", 1).await.unwrap();
        tokio::time::advance(LIFETIME - Duration::from_millis(1)).await;
        assert_eq!(bench.resolver.addresses("a.test", 1).await.unwrap(), first);
        assert_ne!(bench.resolver.addresses("b.test", 1).await.unwrap(), first);
        assert_eq!(bench.asked(), 2);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_ne!(bench.resolver.addresses("a.test", 1).await.unwrap(), first);
        assert_eq!(bench.asked(), 3);
        // A peer may name any number of hosts; only recent ones are kept.
        tokio::time::advance(LIFETIME).await;
        bench.resolver.addresses("c.test", 1).await.unwrap();
        assert_eq!(bench.resolver.known.lock().unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_serves_those_who_waited_and_nobody_else() {
        let bench = bench(none);
        let mut waiting = join_all((0..100).map(|_| bench.resolver.addresses("gateway.test", 1)));
        assert!((&mut waiting).now_or_never().is_none(), "all calls wait");
        bench.may_answer.add_permits(2);
        for answer in waiting.await {
            let error = answer.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            assert_eq!(error.to_string(), "no such host");
        }
        assert_eq!(bench.asked(), 1);
        bench.resolver.addresses("gateway.test", 1).await.unwrap_err();
        assert_eq!(bench.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_does_not_take_the_look_up_along() {
        let bench = bench(two);
        let mut first = Box::pin(bench.resolver.addresses("gateway.test", 1));
        assert!((&mut first).now_or_never().is_none());
        drop(first);
        bench.may_answer.add_permits(1);
        assert_eq!(bench.resolver.addresses("gateway.test", 1).await.unwrap().len(), 2);
        assert_eq!(bench.asked(), 1);
    }

    /// On several threads, with dials abandoned at any time: at most one look-up runs at once.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn on_many_threads_there_is_one_look_up_at_a_time() {
        let running = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&running);
        let resolver = Arc::new(Resolver::new(Box::new(move |_| {
            let running = Arc::clone(&counted);
            async move {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "another one is under way");
                tokio::task::yield_now().await;
                running.fetch_sub(1, Ordering::SeqCst);
                none(0)
            }
            .boxed()
        })));
        let dials: Vec<_> = (0..2000)
            .map(|number| {
                let resolver = Arc::clone(&resolver);
                let dial = tokio::spawn(async move { resolver.addresses("gateway.test", 1).await });
                if number % 3 == 0 {
                    dial.abort();
                }
                dial
            })
            .collect();
        for dial in dials {
            match dial.await {
                Ok(answer) => assert_eq!(answer.unwrap_err().to_string(), "no such host"),
                Err(error) => assert!(error.is_cancelled(), "{error}"),
            }
        }
    }
}
