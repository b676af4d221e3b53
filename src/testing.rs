//! What tests of programs and of stores are written with.

mod contract;

pub use self::contract::store_contract;
