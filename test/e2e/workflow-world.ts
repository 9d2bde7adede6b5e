import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runRequestSchema, type RunRequest } from '#contracts/api-run.ts'
import { WAKE_SIGNAL } from '#contracts/activities.ts'
import { USUAL_GATEWAY_LIMITS } from '#contracts/gateway-limits.ts'
import type { BalanceClass } from '#contracts/names.ts'
import { addDocuments, createCorpus } from '#db/corpus.ts'
import { newId } from '#db/ids.ts'
import { cancelRun, topUpRun } from '#db/run-commands.ts'
import { startRun } from '#db/run-start.ts'
import type { RunState } from '#domain/run-states.ts'
import { startWorker, WORKFLOWS, type RunningWorker } from '#src/worker.ts'
import * as testAgents from './agents/index.ts'
import { Client, Connection } from '@temporalio/client'
import { bundleWorkflowCode, DefaultLogger, Runtime, type WorkflowBundle } from '@temporalio/worker'
import { inject, onTestFinished } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { writeHistory } from '../replay/history-file.ts'
import { createWorld, makeKey, type World } from '../support/world.ts'

const TEST_AGENTS = fileURLToPath(new URL('agents/index.ts', import.meta.url))

const logger = new DefaultLogger('ERROR')
Runtime.install({ logger })

const bundles = new Map<string, Promise<WorkflowBundle>>()

/** Makes what is exported into a bundle once for all workers of this process. */
export function bundleOf(workflowsPath: string): Promise<WorkflowBundle> {
  const bundle = bundles.get(workflowsPath) ?? bundleWorkflowCode({ workflowsPath, logger })
  bundles.set(workflowsPath, bundle)
  return bundle
}

/** A run as its row says it is. */
export interface RunRow {
  readonly state: RunState
  readonly reason: string | null
  readonly detail: string | null
  readonly stop: unknown
  readonly output: unknown
}

/** A world with a Temporal server, workers and a corpus, in which research runs as it does in production. */
export interface WorkflowWorld extends World {
  readonly client: Client
  readonly corpusId: string
  /** Where a worker of one's own finds this world's runs. */
  readonly taskQueue: string
  readonly temporalAddress: string
  /** @param change `isBuiltIn`: as in production, without the agents of tests */
  startWorker(change?: { readonly drainTimeoutMs?: number; readonly isBuiltIn?: boolean }): Promise<RunningWorker>
  /** @param change `direct`: what its envelope holds, in USD */
  start(question: string, change?: StartChange & { readonly breadth?: number }): Promise<string>
  startAgent(agent: string, input: Readonly<Record<string, unknown>>, change?: StartChange): Promise<string>
  /** In USD of direct money. */
  topUp(runId: string, amount: string): Promise<void>
  cancel(runId: string): Promise<void>
  wake(runId: string): Promise<void>
  getRun(runId: string): Promise<RunRow>
  until(runId: string, states: readonly RunState[]): Promise<RunRow>
  /** Keeps the history of a run that is over for the replay test, when the histories are being recorded. */
  keepHistory(runId: string, scenario: string): Promise<void>
}

interface Fact {
  readonly source: string
  readonly text: string
}

/** @param facts the corpus, one document each */
export async function createWorkflowWorld(facts: readonly Fact[]): Promise<WorkflowWorld> {
  const world = await createWorld()
  const { db, scope, database, sandbox } = world
  const { address } = inject('temporal')
  const connection = await Connection.connect({ address })
  const client = new Client({ connection })
  const taskQueue = `test-${randomBytes(6).toString('hex')}`
  const workers = new Set<RunningWorker>()
  onTestFinished(async () => {
    for (const worker of workers) worker.shutdown()
    await Promise.all([...workers].map((worker) => worker.ended))
    await connection.close()
  })
  const corpusId = newId(Date.now())
  await createCorpus(db, scope, { id: corpusId, name: 'facts' })
  const documents = facts.map(({ source, text }) => ({ source, title: source, passages: [{ text }] }))
  await addDocuments(db, scope, { corpusId, documents })
  const keyId = await makeKey(db, scope)

  const getRun = async (runId: string): Promise<RunRow> => {
    const row = await db.selectFrom('run').selectAll().where('id', '=', runId).executeTakeFirstOrThrow()
    const { state, reason, detail, stop, output } = row
    return { state, reason, detail, stop, output }
  }
  const startAgent: WorkflowWorld['startAgent'] = async (agent, input, change = {}) => {
    const request = requestOf(agent, input, change)
    const runId = await db
      .transaction()
      .execute((trx) => startRun(trx, scope, { request, input, keyId, nowMs: Date.now() }))
    await client.workflow.start(agent, { workflowId: runId, taskQueue, args: [{ runId }] })
    return runId
  }
  const wake = (runId: string): Promise<void> => client.workflow.getHandle(runId).signal(WAKE_SIGNAL)
  return {
    ...world,
    client,
    corpusId,
    taskQueue,
    temporalAddress: address,
    getRun,
    wake,
    async keepHistory(runId, scenario) {
      const folder = process.env['PURSER_RECORD_HISTORIES']
      if (folder === undefined) return
      const workflow = client.workflow.getHandle(runId)
      await workflow.result()
      await writeHistory(join(folder, `${scenario}.json.gz`), await workflow.fetchHistory())
    },
    async startWorker(change = {}) {
      const config = {
        database: { url: database.appUrl, maxConnections: 8 },
        api: { host: '127.0.0.1', port: 0, operatorKey: undefined, trustedProxies: [] },
        catalogFile: undefined,
        proxy: undefined,
        approvalAbove: new Map(),
        stripeSecret: undefined,
        allowsPrivateWebhooks: false,
        providers: [{ name: 'sandbox', kind: 'openai', baseUrl: sandbox.url, apiKey: 'sandbox-key' }],
        temporal: { address, namespace: 'default', taskQueue },
        lostCost: 'maximum',
        retention: { refusalsDays: 0, idempotencyDays: 0, instancesDays: 0 },
        worker: { drainTimeoutMs: change.drainTimeoutMs ?? 1_000 },
        gateway: USUAL_GATEWAY_LIMITS,
        seals: { keyFile: undefined, anchorFile: undefined },
        secretsKeyFile: undefined,
      } as const
      const agents = Object.values(testAgents).map((agent) => agent.manifest)
      const workflowBundle = await bundleOf(change.isBuiltIn ? WORKFLOWS : TEST_AGENTS)
      const worker = await startWorker(config, { workflowBundle, ...(!change.isBuiltIn && { agents }) })
      workers.add(worker)
      return worker
    },
    start: (question, { breadth = 4, ...change } = {}) =>
      startAgent('research', { question, corpusId, breadth }, change),
    startAgent,
    async topUp(runId, amount) {
      const pockets = [{ balanceClass: 'direct', amount: { amount, currency: 'USD' } } as const]
      await db.transaction().execute((trx) => topUpRun(trx, scope, { runId, pockets, nowMs: Date.now() }))
      await wake(runId)
    },
    async cancel(runId) {
      await db
        .transaction()
        .execute((trx) => cancelRun(trx, scope, { runId, mode: 'now', reason: undefined, nowMs: Date.now() }))
      await wake(runId)
    },
    until: (runId, states) =>
      pollUntil(
        async () => {
          const row = await getRun(runId)
          return states.includes(row.state) && row
        },
        { what: `run is ${states.join(' or ')}`, deadlineMs: 30_000 },
      ),
  }
}

export type StartChange = Partial<Omit<RunRequest, 'agent' | 'input' | 'envelope'>> & {
  readonly direct?: string
  readonly credit?: string
  readonly wrapUpPercent?: number
}

function requestOf(agent: string, input: Readonly<Record<string, unknown>>, change: StartChange): RunRequest {
  const { direct = '1', credit, wrapUpPercent, ...rest } = change
  const pocket = (balanceClass: BalanceClass, amount: string) => ({ balanceClass, amount: { amount, currency: 'USD' } })
  const pockets = [pocket('direct', direct), ...(credit === undefined ? [] : [pocket('credit', credit)])]
  return runRequestSchema.parse({
    agent,
    model: 'steady',
    input,
    envelope: { pockets, wrapUpPercent },
    onExhausted: 'pause',
    pauseDeadlineSeconds: 60,
    ...rest,
  })
}
