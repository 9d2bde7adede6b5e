import { markHistoryErased, runsWithHistory } from '#db/run-history.ts'
import type { Database } from '#db/schema.ts'
import { isGrpcServiceError, type Client } from '@temporalio/client'
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
  return startRounds(roundMs, async (isStopped) => {
    try {
      const runIds = await runsWithHistory(db, MOST_RUNS)
      let left = 0
      for (const runId of runIds) {
        if (isStopped()) return false
        if (await eraseHistory(client, runId)) await markHistoryErased(db, runId)
        else left += 1
      }
      return runIds.length === MOST_RUNS && left === 0
    } catch (error) {
      log.warn({ err: error }, 'Temporal does not forget the workflows of erased runs yet')
      return false
    }
  })
}

/** Whether nothing of it is left: each of its executions, when it continued as new, unless it goes on. */
async function eraseHistory({ connection, workflow, options }: Client, runId: string): Promise<boolean> {
  const { namespace } = options
  return inTime(connection, async () => {
    let isOver = true
    for await (const execution of workflow.list({ query: `WorkflowId = "${runId}"` })) {
      if (execution.status.name === 'RUNNING') isOver = false
      else {
        const workflowExecution = { workflowId: runId, runId: execution.runId }
        await connection.workflowService
          .deleteWorkflowExecution({ namespace, workflowExecution })
          .catch((error: unknown) => {
            if (!isGrpcServiceError(error) || error.code !== NOT_FOUND) throw error
          })
      }
    }
    return isOver
  })
}
