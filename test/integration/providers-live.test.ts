import { makeSecretsKey, secretBox } from '#db/secret-box.ts'
import { secretCounts } from '#db/secret-turn.ts'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { testSecretsKey } from '../support/api-deps.ts'
import { askChat, useGatewayStage, type GatewayProcess, type GatewayStage } from '../support/gateway-process.ts'
import { pollUntil } from '../support/poll.ts'
import { useProxy } from '../support/proxy.ts'
import { useSecretsKeyFile } from '../support/secrets.ts'

const OLD = 'sandbox-key-of-yesterday'
const NEW = 'sandbox-key-of-today'
/** Much more than a second, on a machine that does other things as well. */
const SOON = { deadlineMs: 20_000 }

/** As an operator of the installation, by one of its processes. */
async function change(
  { api }: GatewayStage,
  { url }: GatewayProcess,
  [method, path, body]: readonly ['POST' | 'PATCH', string, object],
): Promise<void> {
  const answer = await fetch(`${url}/api/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${api.operatorKey}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  expect(answer.status, await answer.text()).toBeLessThan(300)
}

/** An API process whose environment names no provider. */
async function startOne(stage: GatewayStage, keys: readonly string[] = [testSecretsKey]): Promise<GatewayProcess> {
  const keyFile = await useSecretsKeyFile(...keys)
  return stage.start({ PURSER_PROVIDERS: '[]', PURSER_SECRETS_KEY_FILE: keyFile })
}

async function statusOf(stage: GatewayStage, { url }: GatewayProcess): Promise<number> {
  const answer = await askChat({ url, key: stage.tenant.key })
  await answer.text()
  return answer.status
}

async function keysSeen({ sandbox }: GatewayStage): Promise<readonly (string | null)[]> {
  return (await sandbox.readLog()).map(({ keyName }) => keyName)
}

test('a provider that is added, or gets another key, serves the next calls of all processes, without a restart', async () => {
  const stage = await useGatewayStage({ sandbox: { keys: { today: NEW } } })
  const [first, second] = await Promise.all([startOne(stage), startOne(stage)])
  const processes = [first, second]
  for (const process of processes) expect(await statusOf(stage, process)).not.toBe(200)

  await change(stage, first, ['POST', '/providers', { name: 'sandbox', baseUrl: stage.sandbox.url, apiKey: OLD }])
  // The provider refuses that key, which opens the circuit of the route for a minute.
  for (const process of processes) {
    await pollUntil(
      async () => (await statusOf(stage, process)) !== 200 && (await stage.sandbox.readLog()).length > 0,
      {
        what: 'the old key is tried',
        ...SOON,
      },
    )
  }
  await change(stage, first, ['PATCH', '/providers/sandbox', { apiKey: NEW }])
  for (const process of processes) {
    await pollUntil(async () => (await statusOf(stage, process)) === 200, { what: 'the new key serves', ...SOON })
  }
  expect((await keysSeen(stage)).filter((name) => name === 'today').length).toBeGreaterThanOrEqual(2)

  await change(stage, first, ['PATCH', '/providers/sandbox', { baseUrl: 'http://127.0.0.1:1/v1', apiKey: NEW }])
  for (const process of processes) {
    await pollUntil(async () => (await statusOf(stage, process)) !== 200, { what: 'it is asked elsewhere', ...SOON })
  }
})

test(
  'providers of the environment and stored ones are asked through the proxy that a process is told of',
  { timeout: 120_000 },
  async () => {
    const stage = await useGatewayStage()
    const { port, pathname } = new URL(stage.sandbox.url)
    const proxy = await useProxy({ 'model.test': Number(port) })
    const away = { name: 'sandbox', baseUrl: `http://model.test${pathname}`, apiKey: 'sandbox-key' }
    const env = {
      NODE_USE_ENV_PROXY: '1',
      HTTP_PROXY: proxy.url,
      PURSER_SECRETS_KEY_FILE: await useSecretsKeyFile(testSecretsKey),
    }
    const fixed = await stage.start({ ...env, PURSER_PROVIDERS: JSON.stringify([away]) })
    expect(await statusOf(stage, fixed)).toBe(200)
    const stored = await stage.start({ ...env, PURSER_PROVIDERS: '[]' })
    await change(stage, stored, ['POST', '/providers', away])
    await pollUntil(async () => (await statusOf(stage, stored)) === 200, { what: 'the stored one serves', ...SOON })
    const asked = `POST http://model.test${pathname}/chat/completions`
    expect(proxy.asked).toEqual([asked, asked])
  },
)

test('a request that is on ends with the key that it began with', async () => {
  const stage = await useGatewayStage({ sandbox: { keys: { yesterday: OLD, today: NEW } } })
  const first = await startOne(stage)
  await change(stage, first, ['POST', '/providers', { name: 'sandbox', baseUrl: stage.sandbox.url, apiKey: OLD }])
  const process = await startOne(stage)
  const { id } = z
    .looseObject({ id: z.string() })
    .parse(await stage.sandbox.control('POST', '/holds', { model: 'sandbox-steady', at: 'mid-stream' }))
  const open = askChat({ url: process.url, key: stage.tenant.key })
  await pollUntil(async () => (await stage.sandbox.readLog()).length === 1, { what: 'the request is held', ...SOON })
  await change(stage, first, ['PATCH', '/providers/sandbox', { apiKey: NEW }])
  await pollUntil(
    async () => {
      expect(await statusOf(stage, process)).toBe(200)
      return (await keysSeen(stage)).includes('today')
    },
    { what: 'the next calls have the new key', ...SOON },
  )
  await stage.sandbox.control('POST', `/holds/${id}/release`)
  expect((await open).status).toBe(200)
  expect((await keysSeen(stage))[0]).toBe('yesterday')
})

test('the key for secrets is changed process by process, one of which is killed, and every process answers all the time', async () => {
  const stage = await useGatewayStage({ sandbox: { keys: { today: NEW } } })
  const [before, after] = [testSecretsKey, makeSecretsKey()]
  const both = await startOne(stage, [before, after])
  const killed = await startOne(stage, [before])
  await change(stage, killed, ['POST', '/providers', { name: 'sandbox', baseUrl: stage.sandbox.url, apiKey: NEW }])
  await pollUntil(async () => (await statusOf(stage, both)) === 200, { what: 'it is known', ...SOON })

  const ahead = await startOne(stage, [after, before])
  expect(await statusOf(stage, ahead)).toBe(200)
  both.kill('SIGTERM')
  await both.exited
  killed.kill('SIGKILL')
  // Its lease has to run out: until then it may live, and need the old key.
  const isUnderTheNewOne = async () =>
    (await secretCounts(stage.api.db)).every(({ encryptedBy }) => encryptedBy === secretBox(after).keyId)
  await pollUntil(
    async () => {
      expect(await statusOf(stage, ahead)).toBe(200)
      return isUnderTheNewOne()
    },
    { what: 'the new key has taken over', deadlineMs: 60_000 },
  )
  const last = await startOne(stage, [after])
  expect(await statusOf(stage, last)).toBe(200)
  const behind = await startOne(stage, [before])
  expect(await statusOf(stage, behind)).not.toBe(200)
  expect(await behind.readLog()).toContain(`no key ${secretBox(after).keyId} is in PURSER_SECRETS_KEY_FILE`)
  expect(await behind.readLog()).not.toContain(NEW)
}, 180_000)
