import { startDispatcher } from '#api/dispatcher.ts'
import { connectionOptions, temporalOrchestrator } from '#api/orchestrator.ts'
import { temporalSchedules } from '#api/temporal-schedules.ts'
import { runRequestSchema } from '#contracts/api-run.ts'
import { connectDatabase } from '#db/database.ts'
import { newId } from '#db/ids.ts'
import { deposit } from '#db/ledger.ts'
import { createProject } from '#db/project.ts'
import { startRun } from '#db/run-start.ts'
import { createWallet } from '#db/wallet.ts'
import { findFreePort } from '#local/free-port.ts'
import { startCable } from '#local/tcp-cable.ts'
import { Client, Connection } from '@temporalio/client'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, inject, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { loadConfig } from '#src/config.ts'
import { startServer } from '#src/server.ts'
import { makeTenant, runBody, startTestRun, useApi } from '#test/support/api.ts'
import { pollUntil } from '#test/support/poll.ts'
import { createTestDatabase } from '#test/support/postgres.ts'
import { useScratchFolder } from '#test/support/scratch.ts'
import { makeKey, testCatalog } from '#test/support/world.ts'

/** A run of a project of the first organisation, with a command that nobody can deliver. */
async function runInDatabase(url: string): Promise<string> {
  const db = connectDatabase({ url, maxConnections: 1 })
  try {
    const { id: organisationId } = await db.selectFrom('organisation').select('id').executeTakeFirstOrThrow()
    const project = await createProject(db, organisationId, { name: 'only', nowMs: Date.now() })
    const scope = { projectId: project?.id ?? '' }
    const wallet = await createWallet(db, scope, Date.now())
    const money = { balanceClass: 'direct', currency: 'USD', amount: 5_000_000_000n } as const
    await deposit(db, scope, { id: newId(Date.now()), walletId: wallet?.id ?? '', ...money, reference: 'first' })
    const request = runRequestSchema.parse(runBody())
    const run = { request, input: {}, keyId: await makeKey(db, scope), nowMs: Date.now() }
    return await db.transaction().execute((trx) => startRun(trx, scope, run))
  } finally {
    await db.destroy()
  }
}

const quiet = { warn: () => {} }

function useClient(address: string): Client {
  const connection = Connection.lazy({ ...connectionOptions, address })
  onTestFinished(() => connection.close())
  return new Client({ connection })
}

function useDispatcher(api: { readonly db: Parameters<typeof startDispatcher>[0]['db'] }, client: Client) {
  const to = { client, taskQueue: 'nobody-works-here' }
  const dispatcher = startDispatcher({
    db: api.db,
    orchestrator: temporalOrchestrator(to),
    clock: temporalSchedules(to),
    log: quiet,
    monotonicMs: () => performance.now(),
  })
  onTestFinished(() => dispatcher.stop())
  return dispatcher
}

test('commands written while Temporal is away are delivered once it is back, and twice does no harm', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const port = await findFreePort()
  const away = useDispatcher(api, useClient(`127.0.0.1:${port}`))
  const runId = await startTestRun(api, tenant)
  away.poke()
  const cancel = await api.ask('POST', `/api/v1/runs/${runId}/cancel`, { key: tenant.key, body: {} })
  expect(cancel.status).toBe(202)
  const waiting = () => api.db.selectFrom('command').select('id').where('delivered_at', 'is', null).execute()
  expect(await waiting()).toHaveLength(2)

  const temporal = new URL(`http://${inject('temporal').address}`)
  const cable = await startCable({ targetHost: temporal.hostname, targetPort: Number(temporal.port) })
  onTestFinished(() => cable.stop())
  cable.unplug()
  const client = useClient(cable.address)
  useDispatcher(api, client)
  useDispatcher(api, client)
  cable.plug()
  await pollUntil(async () => (await waiting()).length === 0, { what: 'both commands delivered', deadlineMs: 30_000 })
  const described = await client.workflow.getHandle(runId).describe()
  expect([described.type, described.status.name]).toEqual(['echo', 'RUNNING'])
  const history = await client.workflow.getHandle(runId).fetchHistory()
  const signals = history.events?.filter((event) => event.workflowExecutionSignaledEventAttributes) ?? []
  expect(signals.length).toBeGreaterThanOrEqual(1)
  expect(signals[0]?.workflowExecutionSignaledEventAttributes?.signalName).toBe('wake')
  await client.workflow.getHandle(runId).terminate()

  await api.db.updateTable('command').set({ delivered_at: null }).execute()
  await pollUntil(async () => (await waiting()).length === 0, { what: 'commands of a workflow that is gone' })
})

test('a server process answers while Temporal is away, and SIGTERM ends it in order, open streams too', async () => {
  const database = await createTestDatabase()
  onTestFinished(() => database.drop())
  const key = `purser_op_${'k'.repeat(43)}`
  const server = spawn(process.execPath, [fileURLToPath(new URL('../../src/server.ts', import.meta.url))], {
    env: {
      PURSER_DATABASE_URL: database.appUrl,
      PURSER_API_PORT: '0',
      PURSER_OPERATOR_KEY: key,
      TEMPORAL_ADDRESS: `127.0.0.1:${await findFreePort()}`,
    },
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  onTestFinished(() => void server.kill('SIGKILL'))
  const [line] = await once(server.stdout, 'data')
  const { ready } = z.object({ ready: z.strictObject({ url: z.url() }) }).parse(JSON.parse(String(line)))
  const health = await fetch(`${ready.url}/healthz`)
  expect(await health.json()).toEqual({ status: 'degraded', database: 'up', temporal: 'down' })
  const runId = await runInDatabase(database.appUrl)
  const stream = await fetch(`${ready.url}/api/v1/runs/${runId}/events`, {
    headers: { authorization: `Bearer ${key}` },
  })
  expect(stream.status).toBe(200)
  const exited = once(server, 'exit')
  server.kill('SIGTERM')
  expect(await exited).toEqual([0, null])
  await stream.text().catch(() => '')
})

test('the server bootstraps once: the operator key is shown on the very first start only', async () => {
  const database = await createTestDatabase()
  onTestFinished(() => database.drop())
  const catalogFile = join(await useScratchFolder(), 'catalog.json')
  await writeFile(catalogFile, JSON.stringify(testCatalog))
  const environment = {
    PURSER_DATABASE_URL: database.appUrl,
    PURSER_API_PORT: '0',
    PURSER_CATALOG: catalogFile,
    TEMPORAL_ADDRESS: inject('temporal').address,
  }
  const first = await startServer(loadConfig(environment))
  const key = first.operatorKey ?? ''
  expect(key).toMatch(/^purser_op_/)
  const health = await fetch(`${first.url}/healthz`)
  expect(await health.json()).toEqual({ status: 'ok', database: 'up', temporal: 'up' })
  await first.stop()

  const given = `purser_op_${'g'.repeat(43)}`
  const second = await startServer(loadConfig({ ...environment, PURSER_OPERATOR_KEY: given }))
  expect(second.operatorKey).toBeUndefined()
  for (const each of [key, given]) {
    const models = await fetch(`${second.url}/api/v1/models`, { headers: { authorization: `Bearer ${each}` } })
    expect(await models.json()).toMatchObject({ catalogVersion: 1 })
  }
  await second.stop()
  const weak = loadConfig({ ...environment, PURSER_OPERATOR_KEY: 'letmein-letmein-letmein' })
  await expect(startServer(weak)).rejects.toThrow('PURSER_OPERATOR_KEY is not purser_op_')

  const db = connectDatabase({ url: database.appUrl, maxConnections: 1 })
  onTestFinished(() => db.destroy())
  expect(await db.selectFrom('organisation').select('name').execute()).toEqual([{ name: 'default' }])
})
