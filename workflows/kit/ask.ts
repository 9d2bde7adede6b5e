import type { RunControl } from './run-control.ts'
import { askOwner as ask } from './ports.ts'

export interface Question {
  /** What the owner reads: at most 2,000 characters. */
  readonly question: string
  /** What may be answered; anything when left out. */
  readonly choices?: readonly string[]
  /** How long the run waits, in seconds; as long as it may be paused when left out. */
  readonly waitSeconds?: number
  /** The answer when nobody answers in time. Left out: the run then ends as partial. */
  readonly otherwise?: string
}

/** Pauses for input until the owner has answered. */
export async function askOwner(
  control: RunControl,
  path: string,
  { waitSeconds, otherwise, ...question }: Question,
): Promise<string> {
  const limitMs = waitSeconds === undefined ? (control.rules?.pauseDeadlineMs ?? 0) : waitSeconds * 1_000
  const request = { runId: control.runId, path, ...question }
  for (;;) {
    const told = await control.untilTold(async () => (await ask(request)).answer, limitMs)
    if (told !== undefined) return told
    if (otherwise !== undefined) {
      const { answer } = await ask({ ...request, otherwise })
      if (answer !== undefined) return answer
    }
    await control.expirePause(`Nobody answered in time: ${question.question}`)
  }
}
