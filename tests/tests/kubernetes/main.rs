//! The chart in `deploy/helm`: what Helm makes of it, whether that is what Kubernetes takes, and whether the agent observes with
//! the rights that its pod has, all of them and none more.
//!
//! There is no cluster here: a pod is started by runc, with what a kubelet would make of the same object.

mod chart;
mod pod;
mod rights;
mod schemas;
mod values;
