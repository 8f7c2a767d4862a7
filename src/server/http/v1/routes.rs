//! The routes of the API: the paths below `/api/v1/`, their methods, and the scope that each needs.

use hyper::Method;

use crate::server::api_keys::Scope;

/// An operation of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Counts,
    StreamEvents,
    ListRooms,
    ReadRoom,
    CloseRoom,
    ListPeers,
    ReadPeer,
    RemovePeer,
    DescribePeer,
    MutePeer,
    MovePeer,
    SendEvent,
    MakeToken,
    ListNodes,
    Drain,
    EndDrain,
}

/// The method, the path (`{…}` stands for a name), the operation and its scope.
pub(super) const ROUTES: [(Method, &str, Operation, Scope); 16] = [
    (Method::GET, "counts", Operation::Counts, Scope::Read),
    (Method::GET, "events", Operation::StreamEvents, Scope::Read),
    (Method::GET, "rooms", Operation::ListRooms, Scope::Read),
    (Method::GET, "rooms/{room}", Operation::ReadRoom, Scope::Read),
    (Method::DELETE, "rooms/{room}", Operation::CloseRoom, Scope::Moderate),
    (Method::GET, "peers", Operation::ListPeers, Scope::Read),
    (Method::GET, "peers/{peer}", Operation::ReadPeer, Scope::Read),
    (Method::DELETE, "peers/{peer}", Operation::RemovePeer, Scope::Moderate),
    (Method::PUT, "peers/{peer}/description", Operation::DescribePeer, Scope::Describe),
    (Method::POST, "peers/{peer}/mute", Operation::MutePeer, Scope::Moderate),
    (Method::POST, "peers/{peer}/move", Operation::MovePeer, Scope::Moderate),
    (Method::POST, "peers/{peer}/send", Operation::SendEvent, Scope::Describe),
    (Method::POST, "tokens", Operation::MakeToken, Scope::Tokens),
    (Method::GET, "nodes", Operation::ListNodes, Scope::Operate),
    (Method::POST, "drain", Operation::Drain, Scope::Operate),
    (Method::DELETE, "drain", Operation::EndDrain, Scope::Operate),
];

/// The result of looking up a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// The operation, its scope, and the name in the path (empty if the path has none).
    Route(Operation, Scope, &'a str),
    /// The path has other methods than this one.
    Methods(Vec<Method>),
    Nothing,
}

/// Finds the operation of a method and the decoded segments of a path.
pub(super) fn find<'a>(method: &Method, path: &[&'a str]) -> Found<'a> {
    let mut others = vec![];
    for (of, pattern, operation, scope) in &ROUTES {
        let Some(name) = name(pattern, path) else { continue };
        if of == method {
            return Found::Route(*operation, *scope, name);
        }
        others.push(of.clone());
    }
    if others.is_empty() { Found::Nothing } else { Found::Methods(others) }
}

/// Returns the name in a path that fits a pattern.
fn name<'a>(pattern: &str, path: &[&'a str]) -> Option<&'a str> {
    let parts: Vec<&str> = pattern.split('/').collect();
    if parts.len() != path.len() {
        return None;
    }
    let mut name = "";
    for (part, given) in parts.iter().zip(path) {
        match part.starts_with('{') {
            true => name = given,
            false if part == given => {}
            false => return None,
        }
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_method_name_an_operation() {
        assert_eq!(find(&Method::GET, &["rooms"]), Found::Route(Operation::ListRooms, Scope::Read, ""));
        let close = Found::Route(Operation::CloseRoom, Scope::Moderate, "the attic");
        assert_eq!(find(&Method::DELETE, &["rooms", "the attic"]), close);
        assert_eq!(find(&Method::PATCH, &["rooms", "x"]), Found::Methods(vec![Method::GET, Method::DELETE]));
        for path in [&["nothing"][..], &[], &[""], &["rooms", "a", "b"], &["peers", "a", "b"]] {
            assert_eq!(find(&Method::GET, path), Found::Nothing, "{path:?}");
        }
    }

    #[test]
    fn the_description_has_exactly_the_routes() {
        let description: serde_json::Value = serde_json::from_str(super::super::OPENAPI).unwrap();
        assert_eq!(description["openapi"], "3.1.0");
        let mut described: Vec<String> = vec![];
        for (path, item) in description["paths"].as_object().unwrap() {
            let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
            described.extend(methods.map(|method| format!("{} {}", method.to_uppercase(), path)));
        }
        let routes = ROUTES.iter().map(|(method, path, ..)| format!("{method} /{path}"));
        let mut routes: Vec<String> = routes.chain(["GET /openapi.json".to_owned()]).collect();
        described.sort();
        routes.sort();
        assert_eq!(described, routes);
    }
}
