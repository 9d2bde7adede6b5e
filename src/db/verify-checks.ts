import { sql } from 'kysely'
import { attemptChecks } from './verify-attempts.ts'
import { callChecks } from './verify-calls.ts'
import { envelopeChecks } from './verify-envelopes.ts'
import { limitChecks } from './verify-limits.ts'
import { lotChecks } from './verify-lots.ts'
import { marginCheck } from './verify-margins.ts'
import { storageChecks } from './verify-storage.ts'
import { epochOf, type TableCheck } from './verify-table.ts'
import { thresholdCheck } from './verify-thresholds.ts'

const refusalChecks: readonly TableCheck[] = [
  {
    name: 'refusals',
    claim: 'what was refused did not fit: less was free than was asked',
    table: 'refusal',
    key: 'hold_id',
    alias: 'f',
    pieceRows: 50_000,
    movedBy: null,
    rows: (piece) => sql`
      select 'refusal ' || f.hold_id as name, ${epochOf(sql`f.recorded_at`)} as place,
        case when f.free >= f.asked then 'asked for ' || f.asked || ' when ' || f.free || ' were free' end as wrong
      from refusal f where ${piece}`,
  },
]

/** Every check that looks at a table's rows one by one. */
export const tableChecks: readonly TableCheck[] = [
  ...attemptChecks,
  marginCheck,
  ...callChecks,
  ...envelopeChecks,
  ...lotChecks,
  ...refusalChecks,
  ...limitChecks,
  thresholdCheck,
  ...storageChecks,
]
