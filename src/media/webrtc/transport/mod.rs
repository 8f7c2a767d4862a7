//! Transport below webrtcbin's media: ICE, DTLS, the RTP session, and the limits and gates in front of them.

pub(crate) mod certificate;
pub(crate) mod data_gate;
pub(crate) mod dtls;
pub(crate) mod handshake;
pub mod ice;
pub(crate) mod ice_restart;
pub(crate) mod receiver_reports;
pub(crate) mod rtcp;
pub(crate) mod rtp_session;
pub(crate) mod selected_pair;
pub(crate) mod shutdown;
pub(crate) mod source_limit;

pub use ice::IceConfig;
