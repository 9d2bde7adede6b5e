import type { RunState } from '#domain/run-states.ts'
import type { Gate } from '#contracts/names.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import { justBefore, type Instant } from './instant.ts'
import type { RunEntry } from './journal.ts'
import type { Database } from './schema.ts'

/** Which report is asked for: as of an instant, an older revision, or what there is now. */
export type ReportView = { readonly asOf: string } | { readonly revision: number } | 'now'

/** The journal as a report sees it. */
export interface JournalView {
  readonly entries: readonly RunEntry[]
  /** Attempts (`call:number`) that were corrected later: what is stored about them is of later, too. */
  readonly correctedLater: ReadonlySet<string>
  /** Where the view ends; undefined: all there is. */
  readonly upTo: string | undefined
}

/** `instant` is that of the view, read by the database. Undefined when the run has no such revision yet. */
export function viewJournal(journal: readonly RunEntry[], view: ReportView, instant: Instant): JournalView | undefined {
  if (view === 'now') return { entries: journal, correctedLater: new Set(), upTo: undefined }
  if ('asOf' in view) {
    const later = journal.filter((entry) => entry.recordedAt > instant.at)
    const entries = journal.filter((entry) => entry.recordedAt <= instant.at)
    return { entries, correctedLater: corrected(later), upTo: instant.at }
  }
  const { revision } = view
  const last = journal[revision - 1]
  if (!last) return undefined
  const next = journal[revision]
  if (!next) return { entries: journal, correctedLater: new Set(), upTo: undefined }
  // What is no entry of the ledger, such as the end of the run, belongs to the revision before it.
  const end = next.recordedAt > last.recordedAt ? justBefore(next.recordedAt) : last.recordedAt
  return { entries: journal.slice(0, revision), correctedLater: corrected(journal.slice(revision)), upTo: end }
}

function corrected(entries: readonly RunEntry[]): ReadonlySet<string> {
  return new Set(
    entries.filter((entry) => entry.code === 'correction').map((entry) => `${entry.callId}:${entry.attempt}`),
  )
}

/** What a run was at an instant, as its events tell it. */
export interface RunThen {
  readonly state: RunState
  readonly reason: string | null
  readonly detail: string | null
  readonly stop: unknown
  readonly gate: Gate
}

/** Undefined when it did not exist yet. */
export async function runThen(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly runId: string; readonly at: string },
): Promise<RunThen | undefined> {
  const { rows } = await sql<RunThen>`
    select
      case
        when r.finished_at <= i.at then r.state
        when e.kind is not null then substr(e.kind, 5)
        when r.started_at <= i.at then 'running'
        else 'queued'
      end as state,
      case when r.finished_at <= i.at then r.reason else e.data->>'reason' end as reason,
      case when r.finished_at <= i.at then r.detail else e.data->>'detail' end as detail,
      case when r.finished_at <= i.at then r.stop else nullif(e.data->'stop', 'null') end as stop,
      case
        when v.closed_at <= i.at then 'closed'
        when r.ending_at <= i.at then 'closing'
        when e.kind = 'run.paused' then 'frozen'
        else 'open'
      end as gate
    from run r
    join envelope v on v.id = r.envelope_id
    cross join (select ${request.at}::timestamptz as at) i
    left join lateral (
      select s.kind, s.data from event s
      where s.run_id = r.id and s.recorded_at <= i.at
        and s.kind in ('run.running', 'run.paused', 'run.completed', 'run.partial', 'run.cancelled', 'run.failed')
      order by s.xid desc, s.seq desc limit 1
    ) e on true
    where r.id = ${request.runId} and r.project_id = ${scope.projectId} and r.created_at <= i.at`.execute(db)
  return rows[0]
}
