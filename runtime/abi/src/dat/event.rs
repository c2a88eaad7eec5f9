//! Events (udapl.md section 2.3).

use std::ffi::c_void;
use std::mem::{offset_of, size_of};

use super::{Boolean, ConnQual, Context, Count, Handle};

/// `DAT_DTO_COMPLETION_EVENT_DATA`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct DtoCompletion {
    pub ep_handle: Handle,
    pub user_cookie: Context,
    pub status: u32,
    pub transfered_length: u32,
    pub operation: u32,
    pub rmr_context: u32,
}

/// `DAT_RMR_BIND_COMPLETION_EVENT_DATA`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct RmrBindCompletion {
    pub rmr_handle: Handle,
    pub user_cookie: Context,
    pub status: u32,
}

/// `DAT_CR_ARRIVAL_EVENT_DATA`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct CrArrival {
    pub sp_handle: Handle,
    pub local_ia_address_ptr: *mut c_void,
    pub conn_qual: ConnQual,
    pub cr_handle: Handle,
    pub truncate_flag: Boolean,
}

/// `DAT_CONNECTION_EVENT_DATA`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct ConnectionEvent {
    pub ep_handle: Handle,
    pub private_data_size: Count,
    pub private_data: *mut c_void,
}

/// `DAT_ASYNCH_ERROR_EVENT_DATA`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct AsyncError {
    pub dat_handle: Handle,
    pub reason: Count,
}

/// `DAT_EVENT_DATA`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub union EventData {
    pub dto: DtoCompletion,
    pub rmr: RmrBindCompletion,
    pub cr_arrival: CrArrival,
    pub connect: ConnectionEvent,
    pub asynch_error: AsyncError,
    pub software: *mut c_void,
}

/// `DAT_EVENT`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct Event {
    pub event_number: u32,
    pub evd_handle: Handle,
    pub event_data: EventData,
    pub event_extension_data: [u64; 8],
}

// The sizes and offsets of the headers on x86-64 (section 2.4).
const _: () = {
    assert!(size_of::<Event>() == 120);
    assert!(offset_of!(Event, event_data) == 16);
    assert!(offset_of!(Event, event_extension_data) == 56);
    assert!(size_of::<EventData>() == 40);
    assert!(size_of::<CrArrival>() == 40);
    assert!(size_of::<ConnectionEvent>() == 24);
    assert!(size_of::<DtoCompletion>() == 32);
    assert!(offset_of!(DtoCompletion, user_cookie) == 8);
    assert!(offset_of!(DtoCompletion, status) == 16);
    assert!(offset_of!(DtoCompletion, transfered_length) == 20);
    assert!(offset_of!(DtoCompletion, operation) == 24);
    assert!(offset_of!(DtoCompletion, rmr_context) == 28);
    assert!(size_of::<RmrBindCompletion>() == 24);
};
