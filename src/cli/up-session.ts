import { startStack, type Stack } from '#local/stack.ts'

const SIGNALS = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 } as const
/** What shells report for a process that a signal ended. */
const SIGNAL_EXIT_BASE = 128

/**
 * Runs a task on a local stack and ends the stack with it, also when a signal ends us: then in order, and with a second
 * signal at once.
 */
export async function withStack<Result>(
  env: NodeJS.ProcessEnv,
  task: (stack: Stack) => Promise<Result>,
): Promise<Result> {
  let stack: Stack | undefined
  let isEnding = false
  const end = (exitCode: number): void => {
    // While it starts there is nothing to wait for: what runs already notices that its owner is gone.
    if (isEnding || !stack) process.exit(exitCode)
    isEnding = true
    process.stderr.write('\nStopping the stack.\n')
    void stack.stop().finally(() => process.exit(exitCode))
  }
  const handlers = Object.entries(SIGNALS).map(([signal, number]) => {
    const handler = (): void => end(SIGNAL_EXIT_BASE + number)
    process.on(signal, handler)
    return { signal, handler }
  })
  try {
    stack = await startStack(env)
    return await task(stack)
  } finally {
    await stack?.stop()
    for (const { signal, handler } of handlers) process.off(signal, handler)
  }
}

/** Longer than any process lives; a process without a timer or a socket would end. */
const KEEP_ALIVE_MS = 2 ** 30

/** Keeps a stack up until a signal ends it. @throws why it cannot stay up, if there is something that would say so */
export async function stayUp(unexpectedEnd: Promise<string> = new Promise(() => undefined)): Promise<never> {
  const keepAlive = setInterval(() => undefined, KEEP_ALIVE_MS)
  try {
    throw new Error(await unexpectedEnd)
  } finally {
    clearInterval(keepAlive)
  }
}
