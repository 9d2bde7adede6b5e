import { makeSecretsKey, secretBox } from '#db/secret-box.ts'
import { expect, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { useSecretsKeyFile } from '../support/secrets.ts'
import { storeProvider } from '../support/stored-providers.ts'
import { inventFacts } from './invented-facts.ts'
import { startWorkerProcess } from './worker-process.ts'
import { createWorkflowWorld } from './workflow-world.ts'

test('a worker that was started before a provider was added asks it', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  const key = makeSecretsKey()
  const keyFile = await useSecretsKeyFile(key)
  await startWorkerProcess(world, { PURSER_PROVIDERS: '[]', PURSER_SECRETS_KEY_FILE: keyFile })
  await storeProvider(world, secretBox(key), { name: 'sandbox', baseUrl: world.sandbox.url, apiKey: 'sandbox-key' })
  // The process knows it within a second or two, and says so to nobody.
  await pollUntil(
    async () => {
      const runId = await world.start(question)
      return (await world.until(runId, ['completed', 'failed', 'partial'])).state === 'completed'
    },
    { what: 'a run completes', deadlineMs: 60_000 },
  )
  expect((await world.providerAnswers()).size).toBeGreaterThan(0)
}, 180_000)
