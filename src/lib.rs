pub mod oci;
pub mod registry;
pub mod storage;
