import { createServer } from 'node:http'
import { startCable } from '#local/tcp-cable.ts'
import { expect, onTestFinished, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { listen } from '../support/upstream.ts'
import { startPurser } from './command.ts'
import { createExecWorld } from './exec-world.ts'

const SETTLE_MS = 30_000

test('a run that is not opened is not waited for after Ctrl-C, and its command is not started', async () => {
  let asked = 0
  const silent = createServer(() => (asked += 1))
  const url = new URL(await listen(silent)).origin
  onTestFinished(() => silent.closeAllConnections())
  const env = { PURSER_URL: url, PURSER_KEY: `purser_pk_${'x'.repeat(43)}` }
  const run = startPurser(['exec', '--budget', '0.5', '--', 'echo', 'started'], { env })
  await pollUntil(() => asked > 0, { what: 'it asks', deadlineMs: SETTLE_MS })
  run.process.kill('SIGINT')
  expect(await run.ended).toMatchObject({
    code: 'SIGINT',
    out: '',
    err: `purser exec: ${url} has not answered. A run that it opens all the same ends once it has been idle.\n`,
  })
})

test('a run that cannot be ended is not waited for after Ctrl-C, and the code is that of the command', async () => {
  const world = await createExecWorld()
  const { hostname, port } = new URL(world.url)
  const cable = await startCable({ targetHost: hostname, targetPort: Number(port) })
  onTestFinished(() => cable.stop())
  const waits = 'process.on("SIGINT", () => process.exit(5)); setInterval(() => {}, 1_000); console.log(process.pid)'
  const command = ['exec', '--budget', '0.5', '--idle', '3', '--', process.execPath, '-e', waits]
  const run = startPurser(command, { env: { ...world.env, PURSER_URL: `http://${cable.address}` } })
  await pollUntil(() => run.output.out.includes('\n'), { what: 'it is there', deadlineMs: SETTLE_MS })
  const pid = Number(run.output.out)
  cable.unplug()
  run.process.kill('SIGINT')
  await pollUntil(() => !isAlive(pid), { what: 'the command is over', deadlineMs: SETTLE_MS })
  run.process.kill('SIGINT')
  const { id } = await world.theRun()
  const over = `Run ${id} could not be ended; it ends by itself once it has been idle. It was not waited for any longer.`
  expect(await run.ended).toMatchObject({
    code: 5,
    err: `purser exec: ${over}\nWhat it cost, later: purser report ${id}\n`,
  })
  expect(await world.theEnd()).toMatchObject({ state: 'partial', reason: 'idle' })
})

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
