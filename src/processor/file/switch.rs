//! Moving the view of one projection from one file of views to another, whole.
//!
//! Rows are copied as SQLite's own `VACUUM` copies them: tables and their indexes are made first, so that it transfers the pages'
//! records as they are ("xfer optimization", `insert.c`), triggers and views last, so that nothing fires.
//!
//! # Crashes
//! The copy is one transaction of the file that is written; that which is read does not change. What stood there before is
//! there until the commit.

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};
use uuid::Uuid;

use super::{Entry, ViewsFile, quoted, rows};
use crate::clock::Timestamp;
use crate::letters::shelf::Change;
use crate::stream::Position;

impl ViewsFile {
    /// Puts the view of `name` that `shadow` holds, which stands at `at`, in the place of the one here, and `letters` in the place of
    /// its letters.
    pub(crate) fn install(
        &self,
        shadow: &Self,
        name: &str,
        at: (Position, Timestamp),
        letters: &[Change],
    ) -> rusqlite::Result<()> {
        let mut connection = self.writer()?;
        attach(&connection, shadow)?;
        let _turn = self.turn();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let replayed = match Entry::find(&transaction, "main", "name = ?1", name)? {
            Some(old) => {
                old.drop_created(&transaction)?;
                transaction.execute("DELETE FROM main.tidings_views WHERE name = ?1", [name])?;
                Some(old.replayed)
            }
            None => None,
        };
        let mut entry = found(&transaction, name)?;
        (entry.position, entry.time) = at;
        entry.replayed = replayed.unwrap_or(entry.replayed);
        copy(&transaction, &entry, name)?;
        rows::replace(&transaction, name, letters)?;
        transaction.commit()
    }

    /// Keeps a copy of the view of `name` in `kept`, with these letters, in place of what was kept there.
    pub(crate) fn keep(
        &self,
        kept: &Self,
        name: &str,
        letters: &[Change],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        kept.remove()?;
        kept.keep_alive()?;
        let opened = kept.open()?;
        // A single file, which can be copied and removed as such.
        let ignored = |_: &rusqlite::Row<'_>| Ok(());
        opened.query_row("PRAGMA journal_mode = DELETE", [], ignored)?;
        drop(opened);
        let mut connection = kept.writer()?;
        attach(&connection, self)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let entry = found(&transaction, name)?;
        copy(&transaction, &entry, name)?;
        rows::replace(&transaction, name, letters)?;
        transaction.commit()?;
        Ok(())
    }

    /// Makes `copy` one of this whole file.
    pub(crate) fn copy_to(
        &self,
        copy: &Self,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        copy.remove()?;
        copy.keep_alive()?;
        self.writer()?.execute("VACUUM INTO ?1", [copy.name()?])?;
        Ok(())
    }

    /// What is known of the view of `name`, if the file holds it whole and it is of this log.
    pub(crate) fn holds(&self, name: &str, log_id: Uuid) -> rusqlite::Result<Option<Entry>> {
        if !self.exists() {
            return Ok(None);
        }
        let connection = self.read_only()?;
        let sql = "SELECT 1 FROM sqlite_schema WHERE name = 'tidings_views'";
        if !connection.prepare(sql)?.exists([])? {
            return Ok(None);
        }
        let entry = Entry::find(&connection, "main", "name = ?1", name)?;
        Ok(entry.filter(|entry| entry.log_id == log_id))
    }

    /// A connection for copying. Rows move between tables as they are; what they refer to moves with them.
    fn writer(&self) -> rusqlite::Result<Connection> {
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.execute_batch("PRAGMA foreign_keys = OFF")?;
        Ok(connection)
    }
}

impl Entry {
    /// Whether it is of this version and schema.
    pub(crate) fn fits(&self, version: u32, schema: &str) -> bool {
        self.version == version && self.schema == schema
    }
}

/// Under what name the other file is known to a connection.
const SOURCE: &str = "source";

fn attach(connection: &Connection, source: &ViewsFile) -> rusqlite::Result<()> {
    connection.execute(&format!("ATTACH ?1 AS {SOURCE}"), [source.name()?])?;
    Ok(())
}

fn found(connection: &Connection, name: &str) -> rusqlite::Result<Entry> {
    Entry::find(connection, SOURCE, "name = ?1", name)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

/// Copies what `entry` has created, with all rows, and writes the entry down.
fn copy(connection: &Connection, entry: &Entry, name: &str) -> rusqlite::Result<()> {
    let created = |kind: &str, name: &str| {
        entry.created.iter().any(|(known, object)| known == kind && object == name)
    };
    let mut objects: Vec<Object> = connection
        .prepare(&format!(
            "SELECT type, name, tbl_name, sql FROM {SOURCE}.sqlite_schema
             WHERE sql IS NOT NULL ORDER BY rowid"
        ))?
        .query_map([], |row| {
            let (kind, name): (String, String) = (row.get(0)?, row.get(1)?);
            Ok(Object { kind, name, table: row.get(2)?, sql: row.get(3)? })
        })?
        .collect::<Result<_, _>>()?;
    objects.retain(|object| created(&object.kind, &object.name));
    let of_kind = |kind: &'static str| objects.iter().filter(move |object| object.kind == kind);
    let mut tables = Vec::new();
    for object in of_kind("table") {
        let nature = nature(connection, &object.name)?;
        // The tables behind a virtual one come with it.
        if nature.kind != "shadow" {
            connection.execute_batch(&object.sql)?;
        }
        tables.push((object, nature));
    }
    for object in of_kind("index") {
        let is_made = tables
            .iter()
            .any(|(table, nature)| table.name == object.table && nature.kind == "shadow");
        if !is_made {
            connection.execute_batch(&object.sql)?;
        }
    }
    for (object, nature) in &tables {
        copy_rows(connection, &object.name, nature)?;
    }
    for object in of_kind("view").chain(of_kind("trigger")) {
        connection.execute_batch(&object.sql)?;
    }
    entry.insert(connection, name)
}

struct Object {
    kind: String,
    name: String,
    table: String,
    sql: String,
}

/// What SQLite says a table is.
struct Nature {
    /// `table`, `virtual`, or `shadow` of a virtual one.
    kind: String,
    without_rowid: bool,
}

fn nature(connection: &Connection, table: &str) -> rusqlite::Result<Nature> {
    connection.query_row(
        "SELECT type, wr FROM pragma_table_list WHERE schema = ?1 AND name = ?2",
        [SOURCE, table],
        |row| Ok(Nature { kind: row.get(0)?, without_rowid: row.get(1)? }),
    )
}

fn copy_rows(connection: &Connection, table: &str, nature: &Nature) -> rusqlite::Result<()> {
    let name = quoted(table);
    match nature.kind.as_str() {
        "virtual" => return Ok(()),
        "shadow" => connection.execute_batch(&format!("DELETE FROM main.{name}"))?,
        _ => {}
    }
    let sql = if nature.without_rowid || keeps_rowids(connection, table)? {
        format!("INSERT INTO main.{name} SELECT * FROM {SOURCE}.{name}")
    } else {
        let columns = columns(connection, table)?;
        let taken = |alias: &&str| columns.iter().all(|column| !column.eq_ignore_ascii_case(alias));
        let rowid = ["rowid", "_rowid_", "oid"].into_iter().find(taken).map(str::to_owned);
        let columns = rowid.into_iter().chain(columns.iter().map(|column| quoted(column)));
        let columns = columns.collect::<Vec<_>>().join(", ");
        format!("INSERT INTO main.{name} ({columns}) SELECT {columns} FROM {SOURCE}.{name}")
    };
    connection.execute(&sql, [])?;
    let sequence: Option<i64> = connection
        .prepare(&format!("SELECT 1 FROM {SOURCE}.sqlite_schema WHERE name = 'sqlite_sequence'"))?
        .exists([])?
        .then(|| {
            let sql = format!("SELECT seq FROM {SOURCE}.sqlite_sequence WHERE name = ?1");
            connection.query_row(&sql, [table], |row| row.get(0)).optional()
        })
        .transpose()?
        .flatten();
    if let Some(sequence) = sequence {
        connection.execute("DELETE FROM main.sqlite_sequence WHERE name = ?1", [table])?;
        let sql = "INSERT INTO main.sqlite_sequence (name, seq) VALUES (?1, ?2)";
        connection.execute(sql, params![table, sequence])?;
    }
    Ok(())
}

/// Whether rows that are copied as they are get the rowids that they have: if a column is the rowid, or if there is none that is
/// left out, since SQLite may count them anew. A table with generated columns has to be copied by the names of the others.
fn keeps_rowids(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let (keys, is_rowid, generated): (i64, bool, bool) = connection.query_row(
        "SELECT sum(pk > 0), max(pk > 0 AND upper(type) = 'INTEGER'), max(hidden > 1)
         FROM pragma_table_xinfo(?2, ?1)",
        [SOURCE, table],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    if generated {
        return Ok(false);
    }
    if keys == 1 && is_rowid {
        return Ok(true);
    }
    let columns = columns(connection, table)?;
    if columns.iter().any(|column| column.eq_ignore_ascii_case("rowid")) {
        return Ok(false);
    }
    let sql = format!(
        "SELECT coalesce(max(rowid), 0) = count(*), coalesce(min(rowid), 1) > 0 FROM {SOURCE}.{}",
        quoted(table)
    );
    connection.query_row(&sql, [], |row| Ok(row.get::<_, bool>(0)? && row.get::<_, bool>(1)?))
}

/// The columns that are stored.
fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare("SELECT name FROM pragma_table_xinfo(?2, ?1) WHERE hidden < 2 ORDER BY cid")?
        .query_map([SOURCE, table], |row| row.get(0))?
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of SQLite's operations copy the rows of a table with this definition and one row.
    fn copied(schema: &str, insert: &str) -> String {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute("ATTACH ':memory:' AS source", []).unwrap();
        connection.execute_batch(schema).unwrap();
        connection
            .execute_batch(
                &schema.replace("TABLE t", "TABLE source.t").replace("INDEX i", "INDEX source.i"),
            )
            .unwrap();
        connection.execute_batch(insert).unwrap();
        let keeps = nature(&connection, "t").unwrap().without_rowid
            || keeps_rowids(&connection, "t").unwrap();
        assert!(keeps);
        connection
            .prepare("EXPLAIN INSERT INTO main.t SELECT * FROM source.t")
            .unwrap()
            .query_map([], |row| row.get::<_, String>(1))
            .unwrap()
            .collect::<Result<Vec<_>, _>>()
            .unwrap()
            .join(" ")
    }

    #[test]
    fn rows_of_usual_tables_are_transferred_as_they_are() {
        for schema in [
            "CREATE TABLE t (a TEXT, b INTEGER NOT NULL)",
            "CREATE TABLE t (a INTEGER PRIMARY KEY, b INTEGER)",
            "CREATE TABLE t (a TEXT PRIMARY KEY, b INTEGER) WITHOUT ROWID",
            "CREATE TABLE t (a TEXT PRIMARY KEY, b INTEGER); CREATE INDEX i ON t (b);",
        ] {
            let operations = copied(schema, "INSERT INTO source.t VALUES (1, 2)");
            let whole = ["RowCell", "RowData IdxInsert"];
            assert!(whole.iter().any(|copy| operations.contains(copy)), "{schema}: {operations}");
        }
    }

    #[test]
    fn gaps_between_rowids_stay() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute("ATTACH ':memory:' AS source", []).unwrap();
        let gaps = "CREATE TABLE source.t (a); INSERT INTO source.t VALUES (1), (2), (3);
                    DELETE FROM source.t WHERE a = 2; CREATE TABLE t (a);";
        connection.execute_batch(gaps).unwrap();
        copy_rows(&connection, "t", &nature(&connection, "t").unwrap()).unwrap();
        let sql = "SELECT group_concat(rowid) FROM main.t";
        let rowids: String = connection.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(rowids, "1,3");
    }
}
