import type { Connection } from '@temporalio/client'

/** A request that takes longer is given up and repeated. */
const LIMIT_MS = 5_000

/** One request to Temporal. @throws when it cannot be answered in time */
export function inTime<Answer>(connection: ConnectionLike, ask: () => Promise<Answer>): Promise<Answer> {
  return connection.withDeadline(Date.now() + LIMIT_MS, ask)
}

type ConnectionLike = Pick<Connection, 'withDeadline'>
