//! A session store in one file, by redb: transactions that survive the end of the process and of the machine
//! at any byte.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redb::backends::FileBackend;
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError,
    TableHandle, WriteTransaction,
};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::{Changes, SessionRecord, SessionStore, ShardKey, StoreError, Stored};
use crate::chain::readable;

/// Key: generation of the layout and shard id.
const SESSIONS: Sessions = TableDefinition::new("sessions by generation");
/// The sessions of format 1. Key: shard count and shard id.
const SESSIONS_1: Sessions = TableDefinition::new("sessions");
const LAYOUT: TableDefinition<'_, (), &[u8]> = TableDefinition::new("layout");
const BUDGET: TableDefinition<'_, (), &[u8]> = TableDefinition::new("budget");

type Sessions = TableDefinition<'static, (u32, u32), &'static [u8]>;

/// Stores sessions in a file that only its owner may read. A file can be open in one process at a time.
///
/// A save is one transaction with one `fsync`, on tokio's pool for blocking work.
#[derive(Clone, Debug)]
pub struct FileStore(Arc<Handle>);

/// Closes the file when it is dropped, even if a thread that has just finished holds the rest for a moment
/// longer.
#[derive(Debug)]
struct Handle(Arc<Mutex<Option<Reopening>>>);

impl Drop for Handle {
    fn drop(&mut self) {
        // If a thread is still working, that thread closes the file when it is done.
        if let Ok(mut database) = self.0.try_lock() {
            *database = None;
        }
    }
}

/// Error of work that started after the last [`FileStore`] was dropped.
#[derive(Debug, thiserror::Error)]
#[error("the session store file is closed")]
struct Closed;

/// Error of opening a [`FileStore`].
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file cannot be opened or created.
    #[error("cannot open the session store {}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// Another process has the file open.
    #[error(
        "the session store {} is in use by another process: stop it, or use another file",
        path.display()
    )]
    InUse {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file is not a session store, or is damaged.
    #[error("{} is not a session store, or is damaged: remove it to start without sessions", path.display())]
    NoStore {
        /// Path of the file.
        path: PathBuf,
        /// Error of the database.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl FileStore {
    /// Opens the file, or creates it. Blocks for some milliseconds.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, is open in another process, or has other content.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let file = private(path).map_err(|source| OpenError::File { path: path.into(), source })?;
        // Clones share one file lock, which is released with the last of them.
        let open = move || Database::builder().create_with_backend(FileBackend::new(file.try_clone()?)?);
        Reopening::new(open)
            .map(|database| Self(Arc::new(Handle(Arc::new(Mutex::new(Some(database)))))))
            .map_err(|error| OpenError::new(path, error))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        // A thread continues its work when its caller is dropped, and later work waits for it here.
        let mut database = Arc::clone(&self.0.0).lock_owned().await;
        tokio::task::spawn_blocking(move || database.as_mut().ok_or(Closed)?.work(work)).await?
    }
}

impl OpenError {
    fn new(path: &Path, error: redb::DatabaseError) -> Self {
        use redb::{DatabaseError, StorageError};
        let path = path.into();
        match error {
            DatabaseError::DatabaseAlreadyOpen => Self::InUse { path },
            // redb reports a file that it did not write as invalid data.
            DatabaseError::Storage(StorageError::Io(source)) if source.kind() != ErrorKind::InvalidData => {
                Self::File { path, source }
            }
            source => Self::NoStore { path, source: source.into() },
        }
    }
}

/// A database that is opened again after a failure, since redb rejects all further work on a database that
/// has failed.
struct Reopening {
    open: Box<dyn Fn() -> Result<Database, redb::DatabaseError> + Send + Sync>,
    database: Option<Database>,
}

impl fmt::Debug for Reopening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reopening").finish_non_exhaustive()
    }
}

impl Reopening {
    fn new(
        open: impl Fn() -> Result<Database, redb::DatabaseError> + Send + Sync + 'static,
    ) -> Result<Self, redb::DatabaseError> {
        let database = Some(open()?);
        Ok(Self { open: Box::new(open), database })
    }

    fn work<T>(&mut self, work: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let done = match &self.database {
            Some(database) => work(database),
            None => work(self.database.insert((self.open)()?)),
        };
        if done.is_err() {
            // The old database has to be closed first, and the new one opened at once, so that no other
            // process takes the file in between.
            self.database = None;
            self.database = (self.open)().ok();
        }
        done
    }
}

/// Opens a file that only its owner may read.
fn private(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    // Set the permissions also of a file that existed before: they may have been wider.
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(file)
}

impl SessionStore for FileStore {
    fn load(&self) -> BoxFuture<'_, Result<Stored, StoreError>> {
        self.blocking(load).boxed()
    }

    fn save(&self, changes: Changes) -> BoxFuture<'_, Result<(), StoreError>> {
        self.blocking(move |database| save(database, &changes)).boxed()
    }
}

fn load(database: &Database) -> Result<Stored, StoreError> {
    let transaction = database.begin_read()?;
    let mut sessions = sessions_1(read(&transaction, SESSIONS_1)?.as_ref())?;
    if let Some(table) = read(&transaction, SESSIONS)? {
        sessions.extend(records(&table)?);
    }
    Ok(Stored::new(sessions, value(&transaction, LAYOUT)?, value(&transaction, BUDGET)?))
}

/// Opens a table. `None` before the first save.
fn read<K: redb::Key + 'static>(
    transaction: &ReadTransaction,
    table: TableDefinition<'_, K, &'static [u8]>,
) -> Result<Option<ReadOnlyTable<K, &'static [u8]>>, StoreError> {
    match transaction.open_table(table) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads a table of one value. A value of a later version, or a damaged one, counts as missing.
fn value<T: DeserializeOwned>(
    transaction: &ReadTransaction,
    table: TableDefinition<'_, (), &'static [u8]>,
) -> Result<Option<T>, StoreError> {
    let Some(table) = read(transaction, table)? else { return Ok(None) };
    let record = table.get(())?;
    Ok(record.and_then(|record| serde_json::from_slice(record.value()).ok()))
}

/// Reads the sessions of a table, in the order of their keys.
fn records(table: &impl ReadableTable<(u32, u32), &'static [u8]>) -> Result<Vec<SessionRecord>, StoreError> {
    let mut records = Vec::new();
    for entry in table.iter()? {
        let (key, record) = entry.map(|(key, record)| (key.value(), record))?;
        match serde_json::from_slice(record.value()) {
            Ok(record) => records.push(record),
            // Written by a later version, or damaged; the other records may be valid.
            Err(error) => {
                let at = error.column();
                tracing::warn!(
                    shard.id = key.1,
                    "a stored session cannot be parsed from byte {at} on: it is ignored"
                );
            }
        }
    }
    Ok(records)
}

/// Reads the sessions of format 1, in which every layout had generation 1. Each shard count gets a generation
/// of its own here, so that the sessions of two layouts have different keys.
fn sessions_1(
    table: Option<&impl ReadableTable<(u32, u32), &'static [u8]>>,
) -> Result<Vec<SessionRecord>, StoreError> {
    let Some(table) = table else { return Ok(Vec::new()) };
    let (mut generation, mut of) = (0, None);
    let mut records = records(table)?;
    for record in &mut records {
        let count = record.session.count;
        generation += u32::from(of.replace(count) != Some(count));
        record.generation = generation;
    }
    Ok(records)
}

fn save(database: &Database, changes: &Changes) -> Result<(), StoreError> {
    let transaction = database.begin_write()?;
    let sessions_1 = take_sessions_1(&transaction)?;
    {
        let mut sessions = transaction.open_table(SESSIONS)?;
        for record in &sessions_1 {
            sessions.insert(key(record.slot()), serde_json::to_vec(record)?.as_slice())?;
        }
        for slot in &changes.removed {
            sessions.remove(key(*slot))?;
        }
        for record in &changes.sessions {
            sessions.insert(key(record.slot()), serde_json::to_vec(record)?.as_slice())?;
        }
    }
    if let Some(layout) = &changes.layout {
        transaction.open_table(LAYOUT)?.insert((), serde_json::to_vec(layout)?.as_slice())?;
    }
    if let Some(budget) = &changes.budget {
        transaction.open_table(BUDGET)?.insert((), serde_json::to_vec(budget)?.as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}

fn key(slot: ShardKey) -> (u32, u32) {
    (slot.generation, slot.id.0)
}

/// Removes the sessions of format 1, which the caller stores in the present format.
fn take_sessions_1(transaction: &WriteTransaction) -> Result<Vec<SessionRecord>, StoreError> {
    if !transaction.list_tables()?.any(|table| table.name() == SESSIONS_1.name()) {
        return Ok(Vec::new());
    }
    let sessions = sessions_1(Some(&transaction.open_table(SESSIONS_1)?))?;
    transaction.delete_table(SESSIONS_1)?;
    Ok(sessions)
}

readable!(OpenError);

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;
    use std::time::SystemTime;

    use proptest::prelude::*;
    use shardkeeper_proto::{Session, ShardCount, ShardId};

    use super::*;
    use crate::store::{LayoutRecord, conformance};

    /// A directory of the test, which is removed at the end.
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

    #[tokio::test]
    async fn the_store_in_a_file_conforms() {
        let directory = Directory::new("conforms");
        let path = directory.0.join("sessions");
        conformance::check(async || FileStore::open(&path).unwrap()).await.unwrap();
    }

    #[test]
    fn a_file_is_its_owners_alone_and_open_once() {
        let directory = Directory::new("alone");
        let path = directory.0.join("sessions");
        std::fs::write(&path, "").unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let store = FileStore::open(&path).unwrap();
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600);
        }
        let error = FileStore::open(&path).unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
        drop(store);
        FileStore::open(&path).unwrap();
    }

    /// Writes these sessions, each of a shard count and a shard, as version 0.1 did in format 1.
    fn save_format_1(database: &Database, slots: &[(u32, u32)]) -> Result<(), StoreError> {
        let transaction = database.begin_write()?;
        let mut table = transaction.open_table(SESSIONS_1)?;
        for &(count, shard) in slots {
            let session = Session::sample(ShardId(shard), ShardCount::new(count).unwrap());
            let record = SessionRecord { format: 1, ..SessionRecord::new(session, 1, SystemTime::now()) };
            table.insert((count, shard), serde_json::to_vec(&record)?.as_slice())?;
        }
        drop(table);
        transaction.commit()?;
        Ok(())
    }

    #[test]
    fn sessions_of_format_1_are_read_and_kept_apart_by_their_count() {
        let mut store = on(&Disk::default()).unwrap();
        store.work(|database| save_format_1(database, &[(2, 0), (2, 1), (4, 0), (4, 1), (4, 3)])).unwrap();
        let before = store.work(load).unwrap();
        let keys = [(1, 0), (1, 1), (2, 0), (2, 1), (2, 3)];
        assert_eq!(before.sessions.iter().map(|record| key(record.slot())).collect::<Vec<_>>(), keys);
        let counts = before.sessions.iter().map(|record| record.session.count.get());
        assert_eq!(counts.collect::<Vec<_>>(), [2, 2, 4, 4, 4]);
        assert_eq!(before.layout, None);
        // The first save converts them, and changes them by the keys that they were loaded with.
        let layout = LayoutRecord::new(2, ShardCount::new(4).unwrap());
        let removed =
            vec![ShardKey { id: ShardId(1), generation: 1 }, ShardKey { id: ShardId(3), generation: 2 }];
        let changes = Changes { removed, layout: Some(layout.clone()), ..Changes::default() };
        for _ in 0..2 {
            store.work(|database| save(database, &changes)).unwrap();
            let after = store.work(load).unwrap();
            let left = [0, 2, 3].map(|index: usize| before.sessions[index].clone());
            assert_eq!((after.sessions.as_slice(), after.layout), (&left[..], Some(layout.clone())));
        }
    }

    #[test]
    fn a_layout_that_cannot_be_parsed_is_ignored_and_replaced() {
        let mut store = on(&Disk::default()).unwrap();
        let garble = |database: &Database| {
            let transaction = database.begin_write()?;
            transaction.open_table(LAYOUT)?.insert((), b"{\"format\":99".as_slice())?;
            Ok(transaction.commit()?)
        };
        store.work(garble).unwrap();
        assert_eq!(store.work(load).unwrap().layout, None);
        store.work(|database| save(database, &changes(7))).unwrap();
        assert_eq!(store.work(load).unwrap().layout.unwrap().generation, 7);
    }

    #[test]
    fn a_disk_that_recovers_is_used_again() {
        let disk = Disk::default();
        let mut store = on(&disk).unwrap();
        store.work(|database| save(database, &changes(1))).unwrap();
        for left in 0..20 {
            disk.0.lock().unwrap().left = Some(left);
            for _ in 0..2 {
                let _ = store.work(|database| save(database, &changes(2)));
            }
            store.work(|database| save(database, &changes(2))).unwrap_err();
            disk.0.lock().unwrap().left = None;
            store.work(|database| save(database, &changes(3 + left as u64))).unwrap();
            let stored = store.work(load).unwrap();
            assert_eq!(stored.sessions[0].session.sequence, 3 + left as u64);
        }
    }

    #[test]
    fn a_file_is_not_let_go_of_when_its_disk_fails() {
        let directory = Directory::new("kept");
        let path = directory.0.join("sessions");
        let store = FileStore::open(&path).unwrap();
        let work = |changed: Result<Changes, StoreError>| {
            let mut database = store.0.0.try_lock().unwrap();
            database.as_mut().unwrap().work(|database| save(database, &changed?))
        };
        work(Err("the disk is gone".into())).unwrap_err();
        assert!(matches!(FileStore::open(&path), Err(OpenError::InUse { .. })));
        work(Ok(changes(1))).unwrap();
        drop(store);
        FileStore::open(&path).unwrap();
    }

    #[test]
    fn a_thread_that_has_done_its_work_does_not_keep_the_file_open() {
        let directory = Directory::new("closed");
        let path = directory.0.join("sessions");
        let store = FileStore::open(&path).unwrap();
        let worker = Arc::clone(&store.0.0);
        let working = Arc::clone(&worker).try_lock_owned().unwrap();
        drop(store.clone());
        drop(working);
        drop(store);
        FileStore::open(&path).unwrap();
    }

    #[test]
    fn a_disk_that_fails_is_not_taken_for_a_file_that_is_no_store() {
        let full = redb::DatabaseError::from(io::Error::from(io::ErrorKind::StorageFull));
        let error = OpenError::new(Path::new("sessions"), full);
        assert!(matches!(error, OpenError::File { .. }), "{error:?}");
    }

    #[test]
    fn what_is_no_store_is_named_and_left_as_it_is() {
        let directory = Directory::new("foreign");
        let path = directory.0.join("notes");
        let notes = "somebody else's notes ".repeat(1000);
        std::fs::write(&path, &notes).unwrap();
        let error = FileStore::open(&path).unwrap_err();
        assert!(error.to_string().ends_with("is damaged: remove it to start without sessions"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), notes);
        assert!(matches!(FileStore::open(directory.0.join("a/b")), Err(OpenError::File { .. })));
    }

    fn on(disk: &Disk) -> Result<Reopening, redb::DatabaseError> {
        let disk = disk.clone();
        Reopening::new(move || Database::builder().create_with_backend(disk.clone()))
    }

    /// A disk that keeps everything that was synced, and any part of the rest.
    #[derive(Clone, Debug, Default)]
    struct Disk(Arc<Mutex<Platter>>);

    #[derive(Debug, Default)]
    struct Platter {
        synced: Vec<u8>,
        /// Operations since the last sync, in order.
        pending: Vec<Done>,
        now: Vec<u8>,
        /// Number of operations until the power fails.
        left: Option<usize>,
    }

    #[derive(Clone, Debug)]
    enum Done {
        Write(u64, Vec<u8>),
        Length(u64),
    }

    impl Done {
        fn to(&self, bytes: &mut Vec<u8>) {
            match self {
                Self::Length(length) => bytes.resize(usize::try_from(*length).unwrap(), 0),
                Self::Write(offset, data) => {
                    let offset = usize::try_from(*offset).unwrap();
                    bytes.resize(bytes.len().max(offset + data.len()), 0);
                    bytes[offset..offset + data.len()].copy_from_slice(data);
                }
            }
        }
    }

    impl Platter {
        fn work(&mut self) -> io::Result<()> {
            match &mut self.left {
                Some(0) => Err(io::Error::other("no power")),
                Some(left) => {
                    *left -= 1;
                    Ok(())
                }
                None => Ok(()),
            }
        }

        fn done(&mut self, done: Done) {
            done.to(&mut self.now);
            self.pending.push(done);
        }
    }

    impl Disk {
        /// The disk after a power failure. `kept` decides which unsynced operations survive, and how much of
        /// each write.
        fn after_failure(&self, mut kept: impl FnMut() -> (bool, f64)) -> Self {
            let platter = self.0.lock().unwrap();
            let mut bytes = platter.synced.clone();
            for done in &platter.pending {
                let (keep, share) = kept();
                match done {
                    Done::Write(offset, data) if keep => {
                        let cut = (data.len() as f64 * share) as usize;
                        Done::Write(*offset, data[..cut].to_vec()).to(&mut bytes);
                    }
                    Done::Length(_) if keep => done.to(&mut bytes),
                    _ => {}
                }
            }
            let platter = Platter { synced: bytes.clone(), now: bytes, ..Platter::default() };
            Self(Arc::new(Mutex::new(platter)))
        }
    }

    impl redb::StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.lock().unwrap().now.len() as u64)
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let platter = self.0.lock().unwrap();
            let offset = usize::try_from(offset).unwrap();
            let bytes = platter.now.get(offset..offset + out.len());
            out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }

        fn set_len(&self, length: u64) -> io::Result<()> {
            let mut platter = self.0.lock().unwrap();
            platter.work()?;
            platter.done(Done::Length(length));
            Ok(())
        }

        fn sync_data(&self) -> io::Result<()> {
            let mut platter = self.0.lock().unwrap();
            platter.work()?;
            platter.synced = platter.now.clone();
            platter.pending.clear();
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            let mut platter = self.0.lock().unwrap();
            platter.work()?;
            platter.done(Done::Write(offset, data.to_vec()));
            Ok(())
        }
    }

    fn changes(sequence: u64) -> Changes {
        let record = |shard| {
            let mut session = Session::sample(ShardId(shard), ShardCount::new(64).unwrap());
            session.sequence = sequence;
            SessionRecord { stored_at_ms: 0, ..SessionRecord::new(session, 1, SystemTime::now()) }
        };
        let layout = LayoutRecord::new(sequence as u32, ShardCount::new(64).unwrap());
        Changes { sessions: (0..64).map(record).collect(), layout: Some(layout), ..Changes::default() }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn a_power_failure_at_any_byte_leaves_what_was_saved_or_what_was_being_saved(
            fails_after in 0_usize..400, seed in any::<u64>(),
        ) {
            let disk = Disk::default();
            let mut store = on(&disk).unwrap();
            store.work(|database| save(database, &changes(1))).unwrap();
            disk.0.lock().unwrap().left = Some(fails_after);
            let mut saved = 1;
            while saved < 20 && store.work(|database| save(database, &changes(saved + 1))).is_ok() {
                saved += 1;
            }
            let mut random = fastrand::Rng::with_seed(seed);
            let after = disk.after_failure(|| (random.bool(), if random.bool() { 1.0 } else { random.f64() }));
            drop(store);
            let stored = on(&after).unwrap().work(load).unwrap();
            let found = stored.sessions;
            prop_assert_eq!(found.len(), 64);
            let sequence = found[0].session.sequence;
            prop_assert!(sequence == saved || sequence == saved + 1, "{} of {}", sequence, saved);
            prop_assert!(found.iter().all(|record| record.session.sequence == sequence), "a part of it");
            prop_assert_eq!(stored.layout.unwrap().generation as u64, sequence, "the layout of these sessions");
        }
    }
}
