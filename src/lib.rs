pub mod oci;
pub mod storage;
