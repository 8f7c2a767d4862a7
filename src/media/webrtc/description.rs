//! Descriptions of one webrtcbin: created, applied, and transceivers and senders fitted to them.

use gst::prelude::*;
use gst_webrtc::{WebRTCSDPType, WebRTCSessionDescription};

use super::peer::Peer;
use super::state::report_of_peer;
use super::{channels, transceivers};
use crate::base::lock::lock;
use crate::media::gst::error::MediaError;
use crate::media::send::stream::Stream;
use crate::protocol::SdpKind;
use crate::sdp::codec::usable;
use crate::sdp::fingerprint::Fingerprint;
use crate::sdp::webrtcbin::{Ours, Remote, Sources};
use crate::sdp::{Codec, Direction, Kind, Media, Sdp};

impl Peer {
    pub(super) async fn create(&self, kind: SdpKind, restarts_ice: bool) -> Result<Sdp, MediaError> {
        let signal = match kind {
            SdpKind::Offer => "create-offer",
            SdpKind::Answer => "create-answer",
        };
        let ice = self.ice.clone();
        let (made, reply) = smol::channel::bounded(1);
        let promise = gst::Promise::with_change_func(move |reply| {
            let reply = settle(signal, reply.map(|reply| reply.map(ToOwned::to_owned)));
            // This is webrtcbin's own thread, as a restart requires.
            let restarted = restarts_ice && reply.is_ok();
            let credentials = restarted.then(|| ice.restart()).transpose();
            let _ = made.try_send(reply.and_then(|reply| Ok((reply, credentials?))));
        });
        self.webrtc.emit_by_name::<()>(signal, &[&None::<gst::Structure>, &promise]);
        let (reply, credentials) = reply.recv().await.map_err(|_| failed(signal, "no answer"))??;
        let made = reply.and_then(|reply| reply.get::<WebRTCSessionDescription>(kind.as_str()).ok());
        let made = made.ok_or_else(|| failed(signal, "it made none"))?;
        let text = made.sdp().as_text().map_err(|error| failed(signal, error))?;
        let sdp = Sdp::parse(&text).map_err(|error| failed(signal, error))?;
        let idle = self.mlines(|sender| sender.is_idle());
        let ours = Ours { fingerprint: self.certificate.fingerprint(), credentials, idle: &idle };
        let sdp = lock(&self.state).adapter.made(kind, sdp, ours);
        tracing::debug!(kind = kind.as_str(), "made: {}", transceivers::summary(&sdp));
        tracing::trace!("{sdp}");
        Ok(sdp)
    }

    /// Fits the transceivers to the media that this end sends and receives, and to the m-lines that the peer has.
    pub(super) fn prepare_offer(&self, standing: Option<&Sdp>) -> Result<(), MediaError> {
        let (first, wanted, known, kinds) = {
            let mut state = lock(&self.state);
            let first = state.mlines == 0 && state.channels.is_empty();
            let kinds = state.adapter.kinds_to_offer(standing);
            (first, state.wanted.clone(), state.payloads.clone(), kinds)
        };
        self.fit(|pipeline, streams, senders| {
            transceivers::for_offer(pipeline, &self.webrtc, (&self.config, &known, &kinds), streams, senders)
        })?;
        if first {
            for config in self.config.chat.iter().chain(&wanted) {
                channels::open(&self.webrtc, &self.state, &self.events, config)?;
            }
        }
        Ok(())
    }

    /// Changes the senders with `work`, during which the state is not locked, because webrtcbin may call back.
    fn fit(
        &self,
        work: impl FnOnce(&gst::Pipeline, &[Stream], &mut Vec<transceivers::Sender>) -> Result<(), MediaError>,
    ) -> Result<(), MediaError> {
        let (streams, mut senders) = {
            let mut state = lock(&self.state);
            (state.streams.clone(), std::mem::take(&mut state.senders))
        };
        let worked = work(self.owned.pipeline(), &streams, &mut senders);
        let mut state = lock(&self.state);
        let is_sent = |sender: &transceivers::Sender| state.streams.iter().any(|s| sender.carries(&s.id));
        senders.iter_mut().filter(|sender| !is_sent(sender)).for_each(|sender| sender.stop());
        senders.iter().for_each(|sender| sender.flow(state.connected.is_some()));
        state.senders = senders;
        worked
    }

    /// Returns the m-lines of the senders that `of` selects.
    fn mlines(&self, of: impl Fn(&transceivers::Sender) -> bool) -> Vec<usize> {
        lock(&self.state)
            .senders
            .iter()
            .filter(|sender| of(sender))
            .filter_map(|sender| sender.mline())
            .collect()
    }

    pub(super) async fn apply_local(&self, kind: SdpKind) -> Result<(), MediaError> {
        let sending = self.mlines(|_| true);
        let sdp = lock(&self.state).adapter.local(&sending);
        let mut sdp = sdp.ok_or_else(|| failed("set-local-description", "none was made"))?;
        self.ice.give_new_servers();
        self.ice.hide_ours(&mut sdp);
        self.apply("set-local-description", kind, &sdp.to_string()).await?;
        if kind == SdpKind::Answer {
            self.ice.agree();
            let mut state = lock(&self.state);
            state.lacks_mlines = transceivers::lacks_mlines(&state.streams, &state.senders);
        }
        self.send_what_is_wanted();
        self.watch_dtls();
        Ok(())
    }

    pub(super) async fn apply_remote(&self, kind: SdpKind, theirs: &Sdp) -> Result<(), MediaError> {
        tracing::debug!(kind = kind.as_str(), "the peer's: {}", transceivers::summary(theirs));
        let sending = self.mlines(|_| true);
        let (Remote { mut sdp, flows, rejected }, agreed) = {
            let mut state = lock(&self.state);
            let remote = state.adapter.remote(kind, theirs, &sending);
            let remote = remote.map_err(|error| failed("set-remote-description", error))?;
            (state.fingerprints, state.sources) = (Fingerprint::all(&remote.sdp), Sources::of(&remote.sdp));
            state.payloads =
                remote.sdp.media.iter().flat_map(|media| usable(media, &Codec::ALL, &[])).collect();
            (remote, state.mlines)
        };
        if kind == SdpKind::Answer {
            self.fit(|_, _, senders| {
                transceivers::by_answer(&self.config, senders, &sdp, (agreed, rejected.as_slice()))
            })?;
        }
        self.fit(|_, _, senders| {
            transceivers::end_rejected(senders, &rejected);
            Ok(())
        })?;
        self.ice.hide_theirs(&mut sdp);
        self.apply("set-remote-description", kind, &sdp.to_string()).await?;
        if kind == SdpKind::Answer {
            self.ice.agree();
        }
        if kind == SdpKind::Offer {
            if sdp.media.iter().any(|media| media.kind == "application") {
                channels::keep_mline(&self.webrtc, &self.state);
            }
            self.fit(|pipeline, streams, senders| {
                transceivers::for_answer(pipeline, &self.webrtc, &self.config, streams, senders, &sdp, agreed)
            })?;
        }
        let mut state = lock(&self.state);
        let lines = sdp.media.iter().zip(&flows).enumerate();
        let comes = |(_, (media, flow)): &(usize, (&Media, &Direction))| {
            flow.send && Kind::of(media).is_some_and(|kind| self.config.receives(kind))
        };
        let stream = |mline| state.sources.stream(mline).map(str::to_owned);
        state.expected = lines.filter(comes).map(|(mline, _)| stream(mline)).collect();
        state.mlines = sdp.media.len();
        let changes = state.fit_tracks(flows);
        drop(state);
        self.send_what_is_wanted();
        for change in changes {
            report_of_peer(&self.state, &self.events, change);
        }
        self.watch_dtls();
        Ok(())
    }

    async fn apply(&self, signal: &'static str, kind: SdpKind, sdp: &str) -> Result<(), MediaError> {
        let wrong = |error: String| failed(signal, error);
        let message = gst_sdp::SDPMessage::parse_buffer(sdp.as_bytes()).map_err(|e| wrong(e.to_string()))?;
        let kind = match kind {
            SdpKind::Offer => WebRTCSDPType::Offer,
            SdpKind::Answer => WebRTCSDPType::Answer,
        };
        let (promise, reply) = gst::Promise::new_future();
        let description = WebRTCSessionDescription::new(kind, message);
        self.webrtc.emit_by_name::<()>(signal, &[&description, &promise]);
        let reply = reply.await.map(|reply| reply.map(|reply| (*reply).to_owned()));
        settle(signal, reply).map(|_| ())
    }

    /// Sends on the m-lines on which the peer receives, and on no others.
    fn send_what_is_wanted(&self) {
        let mut state = lock(&self.state);
        let (connected, flows) = (state.connected.is_some(), state.flows.clone());
        for sender in &mut state.senders {
            let flow = sender.mline().and_then(|mline| flows.get(mline));
            sender.is_wanted = flow.is_some_and(|flow| flow.receive);
            sender.flow(connected);
        }
    }
}

fn failed(step: &'static str, reason: impl std::fmt::Display) -> MediaError {
    MediaError::Description { step, reason: reason.to_string() }
}

fn settle(
    signal: &'static str,
    reply: Result<Option<gst::Structure>, gst::PromiseError>,
) -> Result<Option<gst::Structure>, MediaError> {
    match reply {
        Ok(None) => Ok(None),
        Ok(Some(reply)) => match reply.get::<gst::glib::Error>("error") {
            Ok(error) => Err(failed(signal, error.message())),
            Err(_) => Ok(Some(reply)),
        },
        Err(error) => Err(failed(signal, format!("no answer: {error:?}"))),
    }
}
