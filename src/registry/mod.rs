//! INTERFACE SKETCH while the domain is being written; signatures are what http/ codes against.
