//! The mesh on one machine: real programs, real namespaces, traffic that the kernel intercepts. Needs `nft`, `ip`,
//! `curl` and user namespaces; not root.

mod access;
mod bad_input;
mod classic;
mod clock;
mod commands;
mod crash;
mod decisions;
mod disk;
mod grpc;
mod identity;
mod injection;
mod ipv6;
mod life;
mod mutual_tls;
mod openssl;
mod operators;
mod output;
mod passthrough;
mod pods;
mod probes;
mod reach;
mod routing;
mod shares;
mod telemetry;
mod traffic;
mod trust_domain;

use std::process::ExitCode;

use mesh_tests::{mesh::Mesh, runner, tests};

#[expect(clippy::too_many_lines, reason = "a list")]
fn main() -> ExitCode {
    let all = tests![
        traffic::the_gateway_serves_the_page,
        traffic::requests_between_pods_pass_both_sidecars,
        traffic::an_unknown_path_at_the_gateway_has_no_route,
        grpc::calls_of_grpc_pass_both_sidecars,
        passthrough::tls_passes_the_gateway_by_its_server_name_to_a_pod_with_a_sidecar,
        routing::without_rules_all_versions_are_seen,
        routing::all_v1_never_shows_stars,
        routing::jason_sees_v2_and_others_do_not,
        routing::weights_are_followed,
        routing::a_delay_is_waited_for_by_whom_it_is_meant,
        routing::an_abort_is_answered_to_whom_it_is_meant,
        routing::a_timeout_cuts_a_slow_answer_short,
        routing::rules_of_the_classic_group_work_as_they_are,
        classic::the_classic_files_do_as_they_are_what_they_say,
        decisions::for_each_sample_file_decide_offline_gives_what_the_wire_gave,
        decisions::for_every_part_of_a_rule_decide_offline_gives_what_the_wire_gave,
        decisions::a_thousand_decisions_and_a_thousand_requests_have_the_same_distribution,
        routing::while_rules_flip_no_request_fails,
        access::roles_decide_by_path_method_and_header,
        access::tokens_decide_who_sees_the_page,
        access::the_classic_role_files_give_what_their_task_describes,
        access::the_classic_denial_by_account_does_as_it_is_what_its_task_describes,
        bad_input::a_bad_file_is_refused_with_what_where_and_what_next,
        bad_input::ten_problems_of_one_file_are_told_at_once,
        bad_input::what_is_there_is_not_created_and_what_is_not_there_is_not_replaced,
        bad_input::a_port_in_use_is_told_with_who_has_it_unless_the_next_one_will_do,
        bad_input::a_machine_without_user_namespaces_is_told_which_setting_forbids_them,
        bad_input::a_machine_without_nft_is_told_how_to_get_it,
        bad_input::an_image_without_a_program_and_a_program_that_exits_at_once_are_told,
        bad_input::no_malformed_request_passes_the_gateway,
        identity::every_proxy_has_the_identity_of_its_account,
        identity::certificates_are_shown_and_keys_are_not,
        identity::a_join_token_is_made_for_an_account_that_is_there,
        identity::an_application_has_its_identity_from_the_socket_where_its_pod_asks_for_it,
        identity::a_rotation_of_the_root_interrupts_nothing,
        identity::a_rotation_goes_on_where_a_killed_ca_left_it,
        identity::a_rotation_stops_and_names_the_proxy_that_lags,
        mutual_tls::every_hop_between_sidecars_is_by_mutual_tls_without_a_word,
        mutual_tls::nothing_of_a_request_is_seen_between_pods,
        mutual_tls::a_stranger_is_served_until_it_is_strict_and_was_named_before,
        mutual_tls::what_a_pod_sends_to_itself_is_plain_and_to_another_pods_address_it_is_not,
        openssl::openssl_is_served_with_a_certificate_of_the_ca_and_refused_without,
        mutual_tls::roles_decide_by_identity,
        mutual_tls::while_modes_flip_no_request_fails,
        mutual_tls::without_the_ca_traffic_goes_on,
        injection::the_webhook_gives_what_kube_inject_gives_offline,
        probes::probes_by_http_tcp_and_grpc_reach_an_intercepted_application,
        probes::a_pod_that_ends_does_so_with_its_sidecar_of_either_kind,
        output::get_shows_rules_in_every_format,
        output::what_get_prints_can_be_given_back_to_replace,
        output::status_and_version_tell_people_and_programs,
        output::logs_are_streamed_as_they_are_written,
        life::a_sidecar_is_there_before_its_application_and_after_it,
        life::without_pilot_traffic_goes_on_and_rules_work_again_when_it_is_back,
        life::two_meshes_live_side_by_side_and_a_killed_one_comes_back_with_its_rules,
        ipv6::requests_over_ipv6_pass_both_sidecars_and_follow_rules,
        pods::a_deployment_is_scaled_and_all_of_its_pods_serve,
        pods::every_pod_is_replaced_under_load_and_no_request_fails,
        trust_domain::a_trust_domain_is_renamed_without_an_outage,
        pods::a_changed_file_restarts_only_what_it_changes,
        pods::a_rebuilt_program_is_picked_up,
        pods::what_was_made_is_exported_and_can_be_applied_again,
        reach::ports_are_forwarded_by_many_connections_and_over_the_end_of_a_pod,
        reach::a_port_that_is_taken_or_unknown_is_told,
        reach::every_balanced_service_has_a_port_of_this_machine,
        crash::whatever_is_killed_comes_back_and_nothing_is_lost,
        crash::a_damaged_journal_is_told_and_recovered,
        clock::a_clock_that_is_set_interrupts_nothing,
        disk::on_a_full_disk_writes_are_refused_and_everything_else_goes_on,
        operators::a_pod_a_service_and_a_rule_are_described_as_the_mesh_has_them,
        operators::a_wait_counts_the_proxies_and_an_edit_reaches_them,
        operators::a_proxys_state_is_compared_with_what_pilot_has_sent,
        operators::one_archive_holds_what_is_needed_and_no_secret,
        commands::create_refuses_what_exists_and_replace_what_does_not,
        commands::proxies_are_in_sync_and_explain_their_configuration,
        commands::kubectl_sees_pods_and_rules,
        commands::logs_show_the_access_log_of_the_sidecar,
        telemetry::the_metrics_of_every_daemon_pass_promtools_linter,
        telemetry::both_sidecars_name_both_workloads_of_a_request,
        telemetry::a_page_is_one_trace_through_all_its_services,
        telemetry::log_levels_are_changed_while_daemons_run,
        telemetry::proxy_config_filters_by_host_subset_and_direction,
    ];
    runner::main(|| Mesh::with_bookinfo("test"), &all)
}
