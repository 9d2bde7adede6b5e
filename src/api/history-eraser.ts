import { markHistoryErased, runsWithHistory } from '#db/run-history.ts'
import type { Database } from '#db/schema.ts'
import { isGrpcServiceError, WorkflowNotFoundError, type Client } from '@temporalio/client'
import type { FastifyBaseLogger } from 'fastify'
import type { Kysely } from 'kysely'
import { startRounds } from './rounds.ts'
import { inTime } from './temporal-call.ts'

const ROUND_MS = 60_000
/** Runs of one look. */
const MOST_RUNS = 50
/** What gRPC calls it: somebody else was quicker, or the namespace's retention was. */
const NOT_FOUND = 5

/**
 * Has Temporal forget the workflows of runs that are erased: histories carry what workflows pass around, small texts among
 * it. Several processes may do so at once. While Temporal is away nothing is forgotten, and nothing is marked.
 */
export function startHistoryEraser(options: {
  readonly db: Kysely<Database>
  readonly client: Client
  readonly log: Pick<FastifyBaseLogger, 'warn'>
  readonly roundMs?: number
}): { stop(): Promise<void> } {
  const { db, client, log, roundMs = ROUND_MS } = options
  // Where the last round ended: a run whose history cannot be forgotten keeps no other.
  let place: string | undefined
  return startRounds(roundMs, async (isStopped) => {
    try {
      const runs = await runsWithHistory(db, { after: place, limit: MOST_RUNS })
      for (const run of runs) {
        if (isStopped()) return false
        place = run.place
        if (await isForgotten(client, run.id)) await markHistoryErased(db, run.id)
      }
      if (runs.length < MOST_RUNS) place = undefined
      return runs.length === MOST_RUNS
    } catch (error) {
      log.warn({ err: error }, 'Temporal does not forget the workflows of erased runs yet')
      return false
    }
  })
}

/**
 * Whether Temporal knows nothing of it any more. What it knows is deleted, in Temporal's own time: each execution, when it
 * continued as new, unless it goes on. That a list is empty proves nothing, since lists come late: the workflow is asked for.
 */
async function isForgotten({ connection, workflow, options }: Client, runId: string): Promise<boolean> {
  const { namespace } = options
  return inTime(connection, async () => {
    let isListed = false
    for await (const execution of workflow.list({ query: `WorkflowId = "${runId}"` })) {
      isListed = true
      if (execution.status.name === 'RUNNING') continue
      const workflowExecution = { workflowId: runId, runId: execution.runId }
      await connection.workflowService
        .deleteWorkflowExecution({ namespace, workflowExecution })
        .catch((error: unknown) => {
          if (!isGrpcServiceError(error) || error.code !== NOT_FOUND) throw error
        })
    }
    return !isListed && isUnknown(workflow, runId)
  })
}

async function isUnknown(workflow: Client['workflow'], runId: string): Promise<boolean> {
  try {
    await workflow.getHandle(runId).describe()
    return false
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return true
    throw error
  }
}
