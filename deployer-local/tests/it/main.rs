//! Tests against a real Docker Engine, as one binary. They fail where there is none.

mod balancer;
