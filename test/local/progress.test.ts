import { describe, expect, it } from 'vitest'
import { type ProgressOptions, type Say, withProgress } from '#local/progress.ts'
import { pollUntil } from '../support/poll.ts'

describe('progress', () => {
  it('is silent for what takes no time', async () => {
    const output = record({ isTTY: true })

    expect(await withProgress('Quick', () => Promise.resolve(7), { output })).toBe(7)
    expect(output.text()).toBe('')
  })

  it('rewrites one line on a terminal', async () => {
    const output = record({ isTTY: true })

    await showUntil(output, 'compiling', { quietMs: 0 })

    expect(output.text()).toMatch(/^\r\S+Build: 0 s, compiling.*\r\S+Build: done after \d s\n$/s)
    expect(output.text().split('\n')).toHaveLength(2)
  })

  it('writes a line now and then where there is no terminal', async () => {
    const output = record({ isTTY: false })

    await showUntil(output, 'linking', { quietMs: 0, lineEveryMs: 20 })

    expect(output.text()).toMatch(/^Build: 0 s.*\nBuild: 0 s, linking\n.*Build: done after \d s\n$/s)
    expect(output.text()).not.toContain('\r')
  })

  it('says that a task failed, and throws its error', async () => {
    const output = record({ isTTY: false })
    const task = async (say: Say) => {
      say('breaking')
      await pollUntil(() => output.text().includes('breaking'), { what: 'the line' })
      throw new Error('broken')
    }

    await expect(withProgress('Build', task, { output, quietMs: 0 })).rejects.toThrow('broken')
    expect(output.text()).toMatch(/Build: failed after \d s\n$/)
  })
})

interface Recorder {
  readonly isTTY: boolean
  write(text: string): void
  text(): string
}

function record({ isTTY }: { readonly isTTY: boolean }): Recorder {
  let text = ''
  return {
    isTTY,
    write: (more) => {
      text += more
    },
    text: () => text,
  }
}

/** Runs a task that says one detail, and ends when that was shown. */
async function showUntil(output: Recorder, detail: string, options: ProgressOptions): Promise<void> {
  const task = async (say: Say) => {
    say(detail)
    await pollUntil(() => output.text().includes(detail), { what: detail })
  }
  await withProgress('Build', task, { output, ...options })
}
