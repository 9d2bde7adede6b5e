import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { useScratchFolder } from '../support/scratch.ts'
import { checkout } from './command.ts'
import { createExecWorld, type ExecWorld } from './exec-world.ts'
import { quoted, typeInShell } from './terminal.ts'

const LAUNCHER = join(checkout, 'src/cli/purser.js')
const SETTLE_MS = 60_000
const FIGURES = /purser {2}spent /

/** `purser exec` as one types it. */
const exec = (options: string, ...command: readonly string[]) =>
  `${[process.execPath, LAUNCHER].map(quoted).join(' ')} exec ${options} -- ${command.map(quoted).join(' ')}`

/** A program of Node that writes to a file what happens to it. */
async function writeTeller(program: string) {
  const file = join(await useScratchFolder(), 'told.txt')
  const tell = `const tell = (text) => require("node:fs").appendFileSync(${JSON.stringify(file)}, text + "\\n"); tell("pid " + process.pid);`
  const told = async () => (await readFile(file, 'utf8').catch(() => '')).trim().split('\n')
  const pid = async () => {
    const found = async () => (await told()).find((line) => line.startsWith('pid '))
    const line = await pollUntil(found, { what: 'the command is there', deadlineMs: SETTLE_MS })
    const id = Number(line.slice('pid '.length))
    onTestFinished(async () => void ((await stateOf(id)) !== 'gone' && process.kill(id, 'SIGKILL')))
    return id
  }
  return { command: [process.execPath, '-e', tell + program] as const, told, pid }
}

/** As /proc has it: T is stopped. */
async function stateOf(pid: number): Promise<string> {
  return (await statOf(pid).catch(() => ['gone']))[0] ?? '?'
}

async function parentOf(pid: number): Promise<number> {
  return Number((await statOf(pid))[1])
}

async function statOf(pid: number): Promise<readonly string[]> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
}

const STAYS = 'setInterval(() => {}, 1_000);'

test('Ctrl-Z stops all of it and gives the terminal back; fg goes on, and nothing is drawn from the background', async () => {
  const world = await createExecWorld()
  const { command, pid } = await writeTeller(`process.on("SIGTERM", () => process.exit(5)); ${STAYS}`)
  const terminal = await typeInShell(world.env, `${exec('--budget 0.5', ...command)}; echo code $?.`)
  const child = await pid()
  await terminal.until(FIGURES)
  terminal.type('\u001A')
  await terminal.until(/Stopped[\s\S]*ready> /)
  expect(await stateOf(child)).toBe('T')
  expect(terminal.seen().lastIndexOf('\u001B[r')).toBeGreaterThan(terminal.seen().lastIndexOf('purser  spent'))
  const drawn = terminal.seen().split('purser  spent').length
  terminal.type('bg\n')
  await pollUntil(async () => (await stateOf(child)) === 'S', { what: 'it goes on', deadlineMs: SETTLE_MS })
  await world.api.post('/runs/{id}/top-up', {
    params: { path: { id: (await world.theRun()).id }, header: { 'idempotency-key': 'more' } },
    body: { pockets: [{ balanceClass: 'direct', amount: { amount: '0.25', currency: 'USD' } }] },
  })
  terminal.type('sleep 4; echo slept\n')
  await terminal.until(/\rslept/)
  expect(terminal.seen().split('purser  spent').length).toBe(drawn)
  terminal.type('fg\n')
  await terminal.until(/purser {2}spent .*left 0\.75/)
  terminal.type('\u001A')
  await terminal.until(/Stopped[\s\S]*ready> /)
  terminal.type('kill %1; echo told; wait\n')
  await terminal.until(/Cost report/)
  expect(await world.theEnd()).toMatchObject({ state: 'completed' })
})

test('Ctrl-C reaches the command once, also where something else is its input', async () => {
  const world = await createExecWorld()
  const { command, told, pid } = await writeTeller(
    `process.on("SIGINT", () => { tell("interrupted"); setTimeout(() => process.exit(9), 1_500) }); ${STAYS}`,
  )
  const terminal = await typeInShell(world.env, `echo hello | ${exec('--budget 0.5', ...command)}; echo code $?.`)
  await pid()
  await terminal.until(FIGURES)
  terminal.type('\u0003')
  await terminal.until(/code 9\./)
  expect((await told()).filter((line) => line === 'interrupted')).toHaveLength(1)
})

test('a terminal that is closed takes the command with it, and the run ends at once', async () => {
  const world = await createExecWorld()
  const { command, told, pid } = await writeTeller(
    `process.on("SIGHUP", () => { tell("hung up"); setTimeout(() => process.exit(9), 1_500) }); ${STAYS}`,
  )
  const terminal = await typeInShell(world.env, exec('--budget 0.5', ...command))
  const child = await pid()
  await terminal.until(FIGURES)
  terminal.close()
  expect(await world.theEnd()).toMatchObject({ state: 'completed' })
  expect(await stateOf(child)).toBe('gone')
  expect(await told()).toContain('hung up')
  await expectVerified(world)
})

test('a command that outlives its terminal keeps its run until it ends itself', async () => {
  const world = await createExecWorld()
  const go = join(await useScratchFolder(), 'go')
  const { command, pid, told } = await writeTeller(
    `process.on("SIGHUP", () => tell("hung up")); setInterval(() => { if (require("node:fs").existsSync(${JSON.stringify(go)})) process.exit(3) }, 100);`,
  )
  const terminal = await typeInShell(world.env, exec('--budget 0.5', ...command))
  await pid()
  await terminal.until(FIGURES)
  terminal.close()
  await pollUntil(async () => (await told()).includes('hung up'), { what: 'it is told', deadlineMs: SETTLE_MS })
  expect(await world.theRun()).toMatchObject({ state: 'running' })
  await writeFile(go, '')
  expect(await world.theEnd()).toMatchObject({ state: 'completed' })
})

/** Asks for more than is there, and says in what state the question finds the command. */
async function reachQuestion({ env }: ExecWorld) {
  const asks = `fetch(process.env.OPENAI_BASE_URL + "/chat/completions", { method: "POST", headers: { authorization: "Bearer " + process.env.OPENAI_API_KEY, "content-type": "application/json" }, body: JSON.stringify({ model: "steady", max_tokens: 4000, messages: [{ role: "user", content: "When?" }] }) });`
  const { command, pid } = await writeTeller(`process.on("SIGTERM", () => process.exit(5)); ${asks} ${STAYS}`)
  const terminal = await typeInShell(env, `${exec('--budget 0.0001', ...command)}; echo code $?.`)
  const child = await pid()
  await terminal.until(/Top up by how many USD\?/)
  expect(await stateOf(child)).toBe('T')
  const goesOn = () =>
    pollUntil(async () => (await stateOf(child)) === 'S', { what: 'it goes on', deadlineMs: SETTLE_MS })
  return { terminal, child, goesOn }
}

test('a question for money that is left with Ctrl-D is answered: by nothing', async () => {
  const { terminal, child, goesOn } = await reachQuestion(await createExecWorld())
  terminal.type('\u0004')
  await goesOn()
  process.kill(child, 'SIGTERM')
  await terminal.until(/code 5\./)
})

test('a signal does not wait until the question for money is answered', async () => {
  const { terminal, child } = await reachQuestion(await createExecWorld())
  process.kill(await parentOf(child), 'SIGTERM')
  await terminal.until(/code 5\./)
})

test('Ctrl-Z and fg bring the question for money again, and the command waits for its answer', async () => {
  const { terminal, child, goesOn } = await reachQuestion(await createExecWorld())
  terminal.type('\u001A')
  await terminal.until(/Stopped[\s\S]*ready> /)
  terminal.type('fg\n')
  await terminal.until(/Top up by how many USD\?/)
  expect(await stateOf(child)).toBe('T')
  terminal.type('\n')
  await goesOn()
})

test('a terminal that is closed with a question for money on it leaves nothing stopped, and no run', async () => {
  const world = await createExecWorld()
  const { terminal, child } = await reachQuestion(world)
  terminal.close()
  expect(await world.theEnd()).toMatchObject({ state: 'completed' })
  expect(await stateOf(child)).toBe('gone')
})

test('a command that stops by itself gives the terminal back', async () => {
  const world = await createExecWorld()
  const { command, pid, told } = await writeTeller(
    `setTimeout(() => { process.kill(process.pid, "SIGSTOP"); tell("goes on") }, 2_000); ${STAYS}`,
  )
  const terminal = await typeInShell(world.env, `${exec('--budget 0.5', ...command)}; echo code $?.`)
  await pid()
  await terminal.until(FIGURES)
  await terminal.until(/Stopped[\s\S]*ready> /)
  terminal.type('fg\n')
  await pollUntil(async () => (await told()).includes('goes on'), { what: 'it goes on', deadlineMs: SETTLE_MS })
  terminal.type('\u0003')
  await terminal.until(/Cost report/)
})
