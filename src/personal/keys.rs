//! The keys of the subjects: one for each, random, made when it is first needed, and destroyed when the subject is forgotten.
//!
//! # What is in memory
//! A key that is in use stands in a table, and every value that was sealed or opened with it holds the same [`Key`]. So
//! forgetting is felt by all of them at once. When the table has grown large, those that no value holds leave it; they are read
//! again when they are needed. A key in a file is found by one query.
//!
//! # Locks
//! `finding` is held by whoever looks for a key that is not in the table, until it stands there: two threads would otherwise
//! make two keys for one subject, and one that was read just before it was destroyed would come back. Forgetting holds it, too.
//! The file's writer has a lock of its own, which comes before: so looking for a key does not wait for new ones to be synced.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use rand::Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

#[cfg(feature = "sqlite")]
use super::file::{Found, KeysFile};
use super::seal::{self, Closed, Nonces, Secret};
use super::{SealError, subject_is_valid};
use crate::clock::Timestamp;
use crate::store::{Durability, EventStore, StoreError};
use crate::stream::Position;

/// How many keys of a file stand in the table before those that no value holds leave it; about 150 bytes each.
#[cfg(feature = "sqlite")]
const KEPT: usize = 65_536;

/// The keys of this process, by the log that they belong to: apps on one log share them.
static VAULTS: LazyLock<RwLock<HashMap<Uuid, Weak<Vault>>>> = LazyLock::new(RwLock::default);

/// The keys of a log; a handle to them.
#[derive(Clone)]
pub(crate) struct Keys(Arc<Vault>);

/// All keys of one log.
pub(super) struct Vault {
    id: Uuid,
    place: Place,
    table: RwLock<Table>,
    finding: Mutex<()>,
    /// Those that the file does not hold yet.
    #[cfg(feature = "sqlite")]
    unsaved: Mutex<Vec<Arc<Key>>>,
    has_unsaved: AtomicBool,
    /// Held while a subject is being forgotten.
    forgetting: Mutex<()>,
    nonces: Nonces,
}

struct Table {
    keys: HashMap<Arc<str>, Arc<Key>>,
    /// When it holds this many, those leave it that no value holds.
    #[cfg(feature = "sqlite")]
    full: usize,
}

/// Where keys are kept.
enum Place {
    /// Here alone, as the log is.
    Memory,
    /// Nowhere: the log outlives the process, and it was not said where its keys do.
    Nowhere,
    #[cfg(feature = "sqlite")]
    File(Box<LazyFile>),
    /// Here alone, and each follows from its subject.
    #[cfg(feature = "testing")]
    Tests,
}

/// A file that is opened, and made, when there is something to seal or to open.
#[cfg(feature = "sqlite")]
struct LazyFile {
    path: PathBuf,
    durability: Durability,
    /// To be asked who was forgotten: as each app has the log, since any of them may end before the others.
    logs: Mutex<Vec<Weak<dyn EventStore>>>,
    file: std::sync::OnceLock<KeysFile>,
    /// Held while it is opened: it can be locked once.
    opening: Mutex<()>,
}

/// The key of one subject, while it is known.
pub(super) struct Key {
    subject: Arc<str>,
    /// None when it is destroyed.
    secret: RwLock<Option<Secret>>,
    forgotten: AtomicBool,
}

impl Key {
    fn new(subject: &str, secret: Option<Secret>) -> Arc<Self> {
        Arc::new(Self {
            subject: subject.into(),
            forgotten: AtomicBool::new(secret.is_none()),
            secret: RwLock::new(secret),
        })
    }

    pub(super) fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Acquire)
    }

    fn destroy(&self) {
        self.forgotten.store(true, Ordering::Release);
        // Dropping it wipes it.
        *self.secret.write() = None;
    }

    /// A copy, which is wiped when it is dropped: no lock is held while the user's code writes or reads a value. What is sealed
    /// with a copy of a key that is destroyed meanwhile cannot be opened.
    fn secret(&self) -> Option<Secret> {
        self.secret.read().clone()
    }

    pub(super) fn seal<T: Serialize>(
        &self,
        nonces: Nonces,
        value: &T,
    ) -> Result<Vec<u8>, SealError> {
        let subject = || self.subject.to_string();
        let secret = self.secret().ok_or_else(|| SealError::Forgotten { subject: subject() })?;
        seal::seal(&secret, &self.subject, nonces, value).ok_or_else(|| SealError::Shape {
            subject: subject(),
            shape: std::any::type_name::<T>(),
        })
    }

    /// What was sealed; none if the subject is forgotten. `place` is where the key is kept.
    pub(super) fn open<T: DeserializeOwned>(
        &self,
        sealed: &[u8],
        place: impl FnOnce() -> String,
    ) -> Result<Option<T>, SealError> {
        let Some(secret) = self.secret() else {
            return Ok(None);
        };
        let subject = || self.subject.to_string();
        match seal::open(&secret, &self.subject, sealed) {
            Ok(value) => Ok(Some(value)),
            Err(Closed::Form) => Err(SealError::Form { subject: subject() }),
            Err(Closed::Changed) => Err(SealError::Changed { subject: subject(), keys: place() }),
            Err(Closed::Shape) => {
                Err(SealError::Shape { subject: subject(), shape: std::any::type_name::<T>() })
            }
        }
    }
}

impl Keys {
    /// The keys of `log`: in the file at `path` or, unless that is said, where the log has them; those of a log in memory are there in
    /// any case. The file is opened if it exists.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be used, or these keys are in use from another one.
    pub(crate) fn of(log: &Arc<dyn EventStore>, path: Option<PathBuf>) -> Result<Self, StoreError> {
        let id = id_of(&**log);
        let path = match (log.keys_beside(), log.durability()) {
            // Keys that outlive their log are of no use to anybody.
            (None, Durability::Memory) => None,
            (beside, _) => path.or(beside),
        };
        let known = VAULTS.read().get(&id).and_then(Weak::upgrade);
        if let Some(vault) = known {
            vault.check_place(path.as_deref())?;
            #[cfg(feature = "sqlite")]
            if let Place::File(lazy) = &vault.place {
                let mut logs = lazy.logs.lock();
                logs.retain(|log| log.strong_count() > 0);
                logs.push(Arc::downgrade(log));
            }
            let keys = Self(vault);
            keys.open_existing()?;
            return Ok(keys);
        }
        let place = match path {
            #[cfg(feature = "sqlite")]
            Some(path) => Place::File(Box::new(LazyFile {
                path,
                durability: log.durability(),
                logs: Mutex::new(vec![Arc::downgrade(log)]),
                file: std::sync::OnceLock::new(),
                opening: Mutex::default(),
            })),
            #[cfg(not(feature = "sqlite"))]
            Some(_) => Place::Nowhere,
            None if log.durability() == Durability::Memory => Place::Memory,
            None => Place::Nowhere,
        };
        let keys = Self::register(id, place);
        keys.open_existing()?;
        Ok(keys)
    }

    /// Keys in memory for the log of this identity, which holds them.
    pub(crate) fn in_memory(log_id: Uuid) -> Self {
        Self::register(log_id, Place::Memory)
    }

    /// Keys in memory that follow from their subjects, so that a value looks the same whenever it is sealed.
    #[cfg(feature = "testing")]
    pub(crate) fn for_tests(log_id: Uuid) -> Self {
        Self::register(log_id, Place::Tests)
    }

    /// Those of this log that are there already, or new ones.
    fn register(id: Uuid, place: Place) -> Self {
        let nonces = match &place {
            #[cfg(feature = "testing")]
            Place::Tests => Nonces::Derived,
            _ => Nonces::Random,
        };
        let new = Arc::new(Vault {
            id,
            place,
            table: RwLock::new(Table {
                keys: HashMap::new(),
                #[cfg(feature = "sqlite")]
                full: KEPT,
            }),
            finding: Mutex::default(),
            #[cfg(feature = "sqlite")]
            unsaved: Mutex::default(),
            has_unsaved: AtomicBool::new(false),
            forgetting: Mutex::default(),
            nonces,
        });
        let mut vaults = VAULTS.write();
        match vaults.get(&id).and_then(Weak::upgrade) {
            Some(vault) => {
                // One that is dropped takes the lock.
                drop(vaults);
                Self(vault)
            }
            None => {
                vaults.insert(id, Arc::downgrade(&new));
                Self(new)
            }
        }
    }

    pub(super) fn id(&self) -> Uuid {
        self.0.id
    }

    #[cfg(feature = "sqlite")]
    fn open_existing(&self) -> Result<(), StoreError> {
        match &self.0.place {
            Place::File(lazy) if lazy.path.exists() => lazy.open().map(drop),
            _ => Ok(()),
        }
    }

    #[cfg(not(feature = "sqlite"))]
    fn open_existing(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Makes the keys durable that were made since the last time: before the events are committed that are sealed with them.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be written; they are written with the next ones.
    pub(crate) fn save(&self) -> Result<(), StoreError> {
        // What is committed was handed over after its keys were made, and that is what orders the two.
        if !self.0.has_unsaved.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.0.save()
    }

    /// Waits until no other subject is being forgotten, and keeps others waiting until the guard is dropped.
    pub(super) fn forgetting(&self) -> parking_lot::MutexGuard<'_, ()> {
        self.0.forgetting.lock()
    }

    /// Destroys the key of `subject`, durably, and writes down that it is forgotten. From then on no value of it is readable.
    ///
    /// # Errors
    /// [`StoreError`] if that cannot be written. Whether the key is destroyed is not known then: do it again.
    pub(super) fn destroy(&self, subject: &str, now: Timestamp) -> Result<(), StoreError> {
        self.0.destroy(subject, now)
    }

    /// Writes down that the log says at `position` that `subject` is forgotten.
    ///
    /// # Errors
    /// [`StoreError`] if that cannot be written.
    #[cfg_attr(not(feature = "sqlite"), expect(unused_variables, reason = "there is no file"))]
    pub(super) fn recorded(&self, subject: &str, position: Position) -> Result<(), StoreError> {
        match &self.0.place {
            #[cfg(feature = "sqlite")]
            Place::File(lazy) => match lazy.file.get() {
                Some(file) => file.recorded(subject, position),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// The subjects that are forgotten and of which the log does not say so: a crash came in between, or the log was restored.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be read.
    pub(crate) fn unrecorded(&self) -> Result<Vec<String>, StoreError> {
        match &self.0.place {
            #[cfg(feature = "sqlite")]
            Place::File(lazy) => match lazy.file.get() {
                Some(file) => file.unrecorded(),
                None => Ok(Vec::new()),
            },
            _ => Ok(Vec::new()),
        }
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("place", &self.0.place()).finish_non_exhaustive()
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        VAULTS.write().retain(|_, vault| vault.strong_count() > 0);
    }
}

/// Which keys are those of `log`: all apps on it share them. A copy of a log in another place has the same identity, and keys of its
/// own.
fn id_of(log: &dyn EventStore) -> Uuid {
    match log.keys_beside() {
        Some(path) => Uuid::new_v5(&log.log_id(), path.as_os_str().as_encoded_bytes()),
        None => log.log_id(),
    }
}

impl Vault {
    pub(super) fn find(id: Uuid) -> Option<Arc<Self>> {
        VAULTS.read().get(&id).and_then(Weak::upgrade)
    }

    pub(super) fn nonces(&self) -> Nonces {
        self.nonces
    }

    /// Where the keys are, for people.
    pub(super) fn place(&self) -> String {
        match &self.place {
            Place::Memory | Place::Nowhere => "the memory".to_owned(),
            #[cfg(feature = "sqlite")]
            Place::File(lazy) => lazy.path.display().to_string(),
            #[cfg(feature = "testing")]
            Place::Tests => "the memory".to_owned(),
        }
    }

    fn check_place(&self, path: Option<&std::path::Path>) -> Result<(), StoreError> {
        let same = match (&self.place, path) {
            #[cfg(feature = "sqlite")]
            (Place::File(lazy), Some(path)) => lazy.path == path,
            (Place::Memory | Place::Nowhere, None) => true,
            #[cfg(feature = "testing")]
            (Place::Tests, _) => true,
            _ => false,
        };
        match (same, path) {
            (true, _) => Ok(()),
            (false, path) => Err(StoreError::Failed {
                place: path.map_or_else(|| self.place(), |path| path.display().to_string()),
                source: format!("the keys of this log are in use from {}", self.place()).into(),
            }),
        }
    }

    /// The key of `subject`, made if there is none.
    pub(super) fn key_to_seal(&self, subject: &str) -> Result<Arc<Key>, SealError> {
        if let Some(key) = self.table.read().keys.get(subject) {
            return Ok(Arc::clone(key));
        }
        if !subject_is_valid(subject) {
            return Err(SealError::Subject { bytes: subject.len() });
        }
        self.find_key(subject, true)
    }

    /// The key of `subject`, to open what was sealed with it; destroyed if the subject is forgotten.
    pub(super) fn key_to_open(&self, subject: &str) -> Result<Arc<Key>, SealError> {
        if let Some(key) = self.table.read().keys.get(subject) {
            return Ok(Arc::clone(key));
        }
        self.find_key(subject, false)
    }

    /// Looks for a key that is not in the table.
    #[cold]
    fn find_key(&self, subject: &str, make: bool) -> Result<Arc<Key>, SealError> {
        let _finding = self.finding.lock();
        if let Some(key) = self.table.read().keys.get(subject) {
            return Ok(Arc::clone(key));
        }
        let missing = || SealError::Missing { subject: subject.to_owned(), keys: self.place() };
        match &self.place {
            Place::Memory if make => {}
            Place::Memory => return Err(missing()),
            Place::Nowhere => return Err(SealError::NoPlace),
            #[cfg(feature = "sqlite")]
            Place::File(lazy) => {
                let unusable = |error| SealError::Keys(Arc::new(error));
                if !make && lazy.file.get().is_none() && !lazy.path.exists() {
                    return Err(missing());
                }
                match lazy.open().and_then(|file| file.find(subject)).map_err(unusable)? {
                    Found::Key(secret) => {
                        return Ok(self.enter(Key::new(subject, Some(secret))));
                    }
                    Found::Forgotten => return Ok(self.enter(Key::new(subject, None))),
                    Found::Nothing if make => {}
                    Found::Nothing => return Err(missing()),
                }
            }
            #[cfg(feature = "testing")]
            Place::Tests => {
                let mut secret = Secret::default();
                let halves = [b"first", b"other"].map(|half| {
                    uuid::Uuid::new_v5(&uuid::Uuid::new_v5(&Uuid::nil(), half), subject.as_bytes())
                });
                let bytes = halves.iter().flat_map(|half| half.as_bytes());
                secret.iter_mut().zip(bytes).for_each(|(byte, from)| *byte = *from);
                return Ok(self.enter(Key::new(subject, Some(secret))));
            }
        }
        let mut secret = Secret::default();
        rand::rng().fill_bytes(&mut *secret);
        let key = Key::new(subject, Some(secret));
        #[cfg(feature = "sqlite")]
        if let Place::File(_) = self.place {
            // Before anybody else can seal with it, so that it is saved before whatever that is.
            let mut unsaved = self.unsaved.lock();
            unsaved.push(Arc::clone(&key));
            self.has_unsaved.store(true, Ordering::Release);
        }
        Ok(self.enter(key))
    }

    /// Puts a key into the table, and takes those out that no value holds if it is full. Whoever calls this holds `finding`.
    fn enter(&self, key: Arc<Key>) -> Arc<Key> {
        let mut table = self.table.write();
        #[cfg(feature = "sqlite")]
        if let Place::File(_) = self.place
            && table.keys.len() >= table.full
        {
            // Nobody gets hold of one meanwhile; those that are to be saved are held.
            table.keys.retain(|_, key| Arc::strong_count(key) > 1);
            table.full = KEPT.max(table.keys.len() * 2);
        }
        table.keys.insert(Arc::clone(&key.subject), Arc::clone(&key));
        key
    }

    fn save(&self) -> Result<(), StoreError> {
        #[cfg(feature = "sqlite")]
        if let Place::File(lazy) = &self.place {
            let file = lazy.open()?;
            // Held until they are written, so that one that is destroyed meanwhile is not written afterwards.
            let mut writer = file.writer();
            let taken = std::mem::take(&mut *self.unsaved.lock());
            let keys = taken.iter().filter_map(|key| Some((&*key.subject, key.secret()?)));
            if let Err(error) = file.save(&mut writer, keys) {
                self.unsaved.lock().extend(taken);
                return Err(error);
            }
            // Not before: another app would commit what it has sealed with them.
            let unsaved = self.unsaved.lock();
            self.has_unsaved.store(!unsaved.is_empty(), Ordering::Release);
        }
        Ok(())
    }

    #[cfg_attr(not(feature = "sqlite"), expect(unused_variables, reason = "there is no file"))]
    fn destroy(&self, subject: &str, now: Timestamp) -> Result<(), StoreError> {
        let forget = || {
            let known = self.table.read().keys.get(subject).cloned();
            match known {
                Some(key) => key.destroy(),
                None => drop(self.enter(Key::new(subject, None))),
            }
        };
        match &self.place {
            Place::Nowhere => Err(StoreError::Failed {
                place: "the keys of the log".into(),
                source: SealError::NoPlace.into(),
            }),
            #[cfg(feature = "sqlite")]
            Place::File(lazy) => {
                let file = lazy.open()?;
                let mut writer = file.writer();
                let _finding = self.finding.lock();
                file.destroy(&mut writer, subject, now)?;
                // From here on it is so after a crash, too.
                forget();
                file.wipe(&writer)
            }
            _ => {
                let _finding = self.finding.lock();
                forget();
                Ok(())
            }
        }
    }
}

#[cfg(feature = "sqlite")]
impl LazyFile {
    /// The file, opened or made now if it was not.
    fn open(&self) -> Result<&KeysFile, StoreError> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let _opening = self.opening.lock();
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let log = self.logs.lock().iter().find_map(Weak::upgrade);
        let Some(log) = log else {
            return Err(StoreError::Failed {
                place: self.path.display().to_string(),
                source: "its log has been closed".into(),
            });
        };
        let file = KeysFile::open(&self.path, self.durability, &*log)?;
        Ok(self.file.get_or_init(|| file))
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::personal::{Personal, with_keys};
    use crate::store::Sqlite;

    /// Values that are in use notice that they are forgotten, also when many other keys were used since they were read.
    #[test]
    fn the_table_lets_go_of_what_no_value_holds_and_of_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let log: Arc<dyn EventStore> =
            Arc::new(Sqlite::open(directory.path().join("bank.db")).unwrap());
        let keys = Keys::of(&log, None).unwrap();
        let full = 16;
        let text = |subject: &str| {
            let value = Personal::new(subject, subject.to_owned());
            with_keys(&keys, || serde_json::to_string(&value)).unwrap()
        };
        let read = |text: &str| -> Personal<String> {
            with_keys(&keys, || serde_json::from_str(text)).unwrap()
        };
        let texts: Vec<String> = (0..200)
            .map(|number| {
                keys.0.table.write().full = full;
                let text = text(&format!("c-{number}"));
                if number % 2 == 0 {
                    keys.save().unwrap();
                }
                text
            })
            .collect();
        keys.save().unwrap();
        assert!(keys.0.table.read().keys.len() <= full + 2);
        let held: Vec<_> = texts.iter().step_by(20).map(|text| read(text)).collect();
        for text in &texts {
            keys.0.table.write().full = full;
            assert!(read(text).get().is_ok());
        }
        assert!(keys.0.table.read().keys.len() <= full + held.len() + 1);
        for value in held.iter().step_by(2) {
            keys.destroy(value.subject(), Timestamp::default()).unwrap();
        }
        for (number, value) in held.iter().enumerate() {
            assert_eq!(value.is_forgotten(), number % 2 == 0);
        }
        // One that nobody holds is forgotten as well.
        keys.destroy("c-33", Timestamp::default()).unwrap();
        assert!(texts.get(33).is_some_and(|text| read(text).is_forgotten()));
    }

    /// Two apps may share them, and each saves before it commits: what the other one is just saving is not saved yet.
    #[test]
    fn nobody_goes_on_before_the_keys_are_saved() {
        let directory = tempfile::tempdir().unwrap();
        let log: Arc<dyn EventStore> =
            Arc::new(Sqlite::open(directory.path().join("bank.db")).unwrap());
        let keys = Keys::of(&log, None).unwrap();
        keys.0.key_to_seal("c-1").unwrap();
        keys.save().unwrap();
        let other = rusqlite::Connection::open(directory.path().join("bank.keys.db")).unwrap();
        let saved = || {
            let count = "SELECT count(*) FROM keys WHERE subject = 'c-2'";
            other.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap() == 1
        };
        keys.0.key_to_seal("c-2").unwrap();
        std::thread::scope(|scope| {
            other.execute_batch("BEGIN IMMEDIATE").unwrap();
            let first = scope.spawn(|| keys.save().unwrap());
            // It has taken what is to be saved, and waits for the file.
            while !keys.0.unsaved.lock().is_empty() {
                std::thread::yield_now();
            }
            let second = scope.spawn(|| keys.save().unwrap());
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!second.is_finished(), "it would commit what may be lost");
            other.execute_batch("ROLLBACK").unwrap();
            first.join().unwrap();
            second.join().unwrap();
            assert!(saved());
        });
    }

    /// The file is made when there is something to seal, and its log is asked then: of several apps, whichever is left has it.
    #[test]
    fn an_app_that_ends_leaves_the_keys_to_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let log = Arc::new(Sqlite::open(directory.path().join("bank.db")).unwrap());
        let first: Arc<dyn EventStore> = Arc::new(Arc::clone(&log));
        let second: Arc<dyn EventStore> = Arc::new(log);
        let keys = Keys::of(&first, None).unwrap();
        drop(Keys::of(&second, None).unwrap());
        drop(second);
        keys.0.key_to_seal("c-1").unwrap();
        keys.save().unwrap();
    }

    #[test]
    fn two_threads_make_one_key_for_a_new_subject() {
        let directory = tempfile::tempdir().unwrap();
        let log: Arc<dyn EventStore> =
            Arc::new(Sqlite::open(directory.path().join("bank.db")).unwrap());
        let keys = Keys::of(&log, None).unwrap();
        for round in 0..50 {
            let subject = format!("c-{round}");
            std::thread::scope(|scope| {
                let make = || {
                    let key = keys.0.key_to_seal(&subject).unwrap();
                    keys.save().unwrap();
                    key
                };
                let others: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
                let first = make();
                for other in others {
                    assert!(Arc::ptr_eq(&first, &other.join().unwrap()));
                }
            });
        }
    }
}
