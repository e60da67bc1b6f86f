//! The mesh on one machine: real programs, real namespaces, traffic that the kernel intercepts. Needs `nft`, `ip`,
//! `curl` and user namespaces; not root.

mod commands;
mod routing;
mod traffic;

use std::process::ExitCode;

use mesh_tests::{mesh::Mesh, runner, tests};

fn main() -> ExitCode {
    let all = tests![
        traffic::the_gateway_serves_the_page,
        traffic::requests_between_pods_pass_both_sidecars,
        traffic::an_unknown_path_at_the_gateway_has_no_route,
        routing::without_rules_all_versions_are_seen,
        routing::all_v1_never_shows_stars,
        routing::jason_sees_v2_and_others_do_not,
        routing::weights_are_followed,
        routing::a_delay_is_waited_for_by_whom_it_is_meant,
        routing::an_abort_is_answered_to_whom_it_is_meant,
        routing::a_timeout_cuts_a_slow_answer_short,
        routing::rules_of_the_classic_group_work_as_they_are,
        routing::while_rules_flip_no_request_fails,
        commands::create_refuses_what_exists_and_replace_what_does_not,
        commands::proxies_are_in_sync_and_explain_their_configuration,
        commands::kubectl_sees_pods_and_rules,
        commands::logs_show_the_access_log_of_the_sidecar,
    ];
    runner::main(|| Mesh::with_bookinfo("test"), &all)
}
