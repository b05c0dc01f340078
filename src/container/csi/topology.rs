//! Where nodes are, and where the cluster is reached from, as the operator has said; and what orchestrators ask of that.
//!
//! Every node that reaches the cluster reaches every volume. So there is one answer for all of them: a place is fit, or it is not.

use std::collections::{BTreeMap, BTreeSet};

use tonic::Status;

use super::spec::{Map, Topology, TopologyRequirement};

/// Each is told with every volume.
const PLACES_MAX: usize = 256;
/// Orchestrators keep segments as labels of nodes.
const SEGMENT_BYTES_MAX: usize = 63;
const DOMAIN_BYTES_MAX: usize = 253 + 1 + SEGMENT_BYTES_MAX;

/// Segments by their domains: one each for a node, one or more for a cluster. Without any, volumes are told to be of use from
/// everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segments(BTreeMap<String, BTreeSet<String>>);

/// What was said of segments is not possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    #[error("`{0}` is no domain of a topology: write it as in topology.kubernetes.io/zone")]
    Domain(String),
    #[error("`{0}` is no segment: letters, digits, -, _ and . are possible, 63 at most")]
    Segment(String),
    #[error("a node is in one segment of {0}, and not in more")]
    Several(String),
    #[error("these are {0} places, and 256 at most can be told")]
    Places(usize),
}

impl Segments {
    /// A domain without a segment is left out: so it is where a label of a node, which it is read from, is not there.
    ///
    /// # Errors
    /// An orchestrator would not take one of them, or they are too many.
    pub fn of(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Segments, SegmentError> {
        let mut segments = Segments::default();
        for (domain, segment) in pairs {
            let is_domain = domain.split('/').count() <= 2 && domain.split('/').all(is_word);
            if !is_domain || domain.len() > DOMAIN_BYTES_MAX {
                return Err(SegmentError::Domain(domain));
            }
            if segment.is_empty() {
                continue;
            }
            if !is_word(&segment) || segment.len() > SEGMENT_BYTES_MAX {
                return Err(SegmentError::Segment(segment));
            }
            segments.0.entry(domain).or_default().insert(segment);
        }
        let count = segments.0.values().map(BTreeSet::len).fold(1, usize::saturating_mul);
        if count > PLACES_MAX { Err(SegmentError::Places(count)) } else { Ok(segments) }
    }

    /// Something was said.
    pub fn is_known(&self) -> bool {
        !self.0.is_empty()
    }

    /// # Errors
    /// A domain has more than one.
    pub fn of_one_node(&self) -> Result<Map, SegmentError> {
        let one = |(domain, segments): (&String, &BTreeSet<String>)| match segments.iter().collect::<Vec<_>>()[..] {
            [segment] => Ok((domain.clone(), segment.clone())),
            _ => Err(SegmentError::Several(domain.clone())),
        };
        self.0.iter().map(one).collect()
    }

    /// Every place that volumes are reached from; none where that is not known.
    pub(super) fn places(&self) -> Vec<Topology> {
        if !self.is_known() {
            return Vec::new();
        }
        let mut places = vec![Map::new()];
        for (domain, segments) in &self.0 {
            let with = |place: &Map, segment: &String| {
                let mut place = place.clone();
                place.insert(domain.clone(), segment.clone());
                place
            };
            places = places.iter().flat_map(|place| segments.iter().map(move |segment| with(place, segment))).collect();
        }
        places.into_iter().map(|segments| Topology { segments }).collect()
    }

    /// Volumes are reached from there. A domain that nobody has spoken of is nowhere.
    pub(super) fn has(&self, place: &Topology) -> bool {
        let known = |(domain, segment)| self.0.get(domain).is_some_and(|segments| segments.contains::<String>(segment));
        !self.is_known() || place.segments.iter().all(known)
    }

    /// What is preferred and not to be had is no fault: only one of the requisite ones has to be.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`: a volume is to be reached from one of some places, and none of them is fit.
    pub(super) fn check(&self, wanted: Option<&TopologyRequirement>) -> Result<(), Status> {
        let requisite = wanted.map(|wanted| wanted.requisite.as_slice()).unwrap_or_default();
        if requisite.is_empty() || requisite.iter().any(|place| self.has(place)) {
            return Ok(());
        }
        Err(Status::resource_exhausted("volumes are reached from none of the places that are asked for"))
    }
}

/// Begins and ends with a letter or digit.
fn is_word(text: &str) -> bool {
    let plain = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let inner = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    inner && plain(text.bytes().next()) && plain(text.bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(domain, segment)| (domain.to_string(), segment.to_string())).collect()
    }

    fn segments(of: &[(&str, &str)]) -> Segments {
        Segments::of(pairs(of)).unwrap()
    }

    fn place(of: &[(&str, &str)]) -> Topology {
        Topology { segments: pairs(of).into_iter().collect() }
    }

    #[test]
    fn a_cluster_has_every_place_of_its_segments() {
        let known = segments(&[("x/region", "eu"), ("x/zone", "a"), ("x/zone", "b"), ("x/zone", "a")]);
        let all = [("a"), ("b")].map(|zone| place(&[("x/region", "eu"), ("x/zone", zone)]));
        assert_eq!(known.places(), all);
        assert!(known.has(&all[1]) && known.has(&place(&[("x/zone", "b")])));
        assert!(!known.has(&place(&[("x/zone", "c"), ("x/region", "eu")])));
        assert!(!known.has(&place(&[("x/rack", "7")])));
        assert_eq!(known.of_one_node(), Err(SegmentError::Several("x/zone".into())));
    }

    #[test]
    fn where_nothing_is_said_everywhere_is_fit() {
        let none = segments(&[("x/zone", "")]);
        assert!(!none.is_known() && none.places().is_empty() && none.has(&place(&[("x/zone", "c")])));
        assert_eq!(none.of_one_node(), Ok(Map::new()));
    }

    #[test]
    fn one_of_the_requisite_places_is_enough_and_a_preferred_one_is_not_needed() {
        let known = segments(&[("x/zone", "a")]);
        let (fit, unfit) = (place(&[("x/zone", "a")]), place(&[("x/zone", "b")]));
        let wanted = |requisite: &[&Topology], preferred: &[&Topology]| {
            let all = |places: &[&Topology]| places.iter().map(|place| (*place).clone()).collect();
            known.check(Some(&TopologyRequirement { requisite: all(requisite), preferred: all(preferred) }))
        };
        wanted(&[&unfit, &fit], &[&unfit]).unwrap();
        wanted(&[], &[&unfit]).unwrap();
        known.check(None).unwrap();
        assert_eq!(wanted(&[&unfit], &[&unfit]).unwrap_err().code(), tonic::Code::ResourceExhausted);
    }

    #[test]
    fn what_no_label_can_be_is_refused() {
        for (domain, segment) in [("", "a"), ("x/y/z", "a"), ("x/", "a"), ("x y", "a")] {
            assert!(matches!(Segments::of(pairs(&[(domain, segment)])), Err(SegmentError::Domain(_))), "{domain}");
        }
        for segment in ["-a", "a b", "ä", &"a".repeat(64)] {
            assert!(matches!(Segments::of(pairs(&[("x/zone", segment)])), Err(SegmentError::Segment(_))), "{segment}");
        }
        let many = (0..257).map(|count| ("x/host".to_string(), count.to_string()));
        assert_eq!(Segments::of(many), Err(SegmentError::Places(257)));
    }
}
