/** Why a time of a schedule brought no run, as a closed set; a sentence for people stands beside it. */
export const SKIP_REASONS = [
  'paused',
  'key_revoked',
  'overlap',
  'late',
  'monthly_cap',
  'wallet_short',
  'debt_outstanding',
  'no_quote',
  'refused',
] as const
export type SkipReason = (typeof SKIP_REASONS)[number]

/** What became of one time of a schedule. */
export type Firing =
  | { readonly kind: 'started'; readonly runId: string }
  | { readonly kind: 'skipped'; readonly reason: SkipReason; readonly detail: string }

/** What a schedule's workflow may ask for. Implemented in `activities/`. */
export interface ScheduleActivities {
  /** Once for each schedule and time: asked again it answers the same. `scheduledFor` is an instant, ISO 8601. */
  fireSchedule(request: ScheduledTime & { readonly scheduledFor: string }): Promise<Firing>
}

/** What Temporal was told of a schedule for each of its times. */
export interface ScheduledTime {
  readonly scheduleId: string
  /** A time that has waited for a worker for longer brings no run. Missing in what was told before there was such a bound. */
  readonly lateAfterMs?: number
}

/** Type of the workflow that a schedule starts; it is no agent. */
export const SCHEDULED_RUN = 'scheduledRun'
