//! Prepared statements of the thread that writes.
//!
//! Found by the address of their text, which is a constant of the program, so there are no more of them than the program has texts. The cache
//! of rusqlite hashes the text, moves the statement out and back, and clears what was bound: a tenth
//! of what a statement of one row costs. What was bound last is kept until the next use, which binds everything anew.

use std::{cell::RefCell, rc::Rc};

use rusqlite::{CachedStatement, Connection, Statement};

use crate::failure::Outcome;

/// A constant text: its address and its length.
type Text = (usize, usize);

/// A statement, lent to one user at a time.
type Kept<'c> = Rc<RefCell<CachedStatement<'c>>>;

/// The statements of one connection, in the order in which they were first used: the hot ones come early.
pub(crate) struct Statements<'c> {
    connection: &'c Connection,
    known: RefCell<Vec<(Text, Kept<'c>)>>,
}

impl<'c> Statements<'c> {
    /// None yet.
    pub(crate) fn new(connection: &'c Connection) -> Self {
        Self { connection, known: RefCell::default() }
    }

    /// Runs a statement, which is prepared at its first use.
    pub(crate) fn with<T>(&self, sql: &'static str, run: impl FnOnce(&mut Statement<'c>) -> Outcome<T>) -> Outcome<T> {
        let statement = self.statement(sql)?;
        match statement.try_borrow_mut() {
            Ok(mut statement) => run(&mut statement),
            // It runs already, further up: this one is another.
            Err(_) => run(&mut *self.connection.prepare_cached(sql)?),
        }
    }

    fn statement(&self, sql: &'static str) -> Outcome<Kept<'c>> {
        let text = (sql.as_ptr().addr(), sql.len());
        if let Some((_, known)) = self.known.borrow().iter().find(|(known, _)| *known == text) {
            return Ok(Rc::clone(known));
        }
        let statement = Rc::new(RefCell::new(self.connection.prepare_cached(sql)?));
        self.known.borrow_mut().push((text, Rc::clone(&statement)));
        Ok(statement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_prepared_once_and_may_run_within_itself() {
        const COUNT: &str = "SELECT count(*) FROM sqlite_schema WHERE name <> ?1";
        let connection = Connection::open_in_memory().unwrap();
        let statements = Statements::new(&connection);
        let count = |name: &str| statements.with(COUNT, |one| Ok(one.query_row([name], |row| row.get::<_, i64>(0))?));
        assert_eq!(count("a").unwrap_or(-1), 0);
        connection.execute_batch("CREATE TABLE a (b)").unwrap();
        assert_eq!(count("a").unwrap_or(-1), 0);
        assert_eq!(count("c").unwrap_or(-1), 1);
        assert_eq!(statements.known.borrow().len(), 1);
        let within = statements.with(COUNT, |outer| {
            let mut rows = outer.query(["c"])?;
            let inner = count("a");
            let seen: i64 = rows.next()?.map_or(Ok(-1), |row| row.get(0))?;
            Ok((seen, inner?))
        });
        assert_eq!(within.unwrap_or_default(), (1, 0));
    }
}
