import type { WriteStream } from 'node:tty'
import { isInForeground } from './exec-job.ts'

const SAVE = '\u001B7'
const RESTORE = '\u001B8'
const CLEAR_LINE = '\u001B[2K'
const UP = '\u001B[A'
/** One row down in the same column, where a new line would begin at the first. */
const DOWN = '\u001BD'
const DIM = '\u001B[2m'
const PLAIN = '\u001B[0m'

/**
 * A line at the bottom of a terminal that others write to. The rows above it scroll by themselves (DECSTBM), so that
 * what a command writes never runs into it. Programs that take the whole screen may paint over it.
 */
export class StatusLine {
  readonly #stream: WriteStream
  #text = ''
  #isShown = false
  readonly #onResize = (): void => {
    if (!this.#isShown || !(this.#stream.rows > 1)) return
    this.#reserve()
    this.#draw()
  }

  /** Ctrl-Z: whoever has the terminal then has all of it. The line comes back with the next figures. */
  readonly #onSuspend = (): void => {
    this.hide()
    process.kill(process.pid, 'SIGSTOP')
  }

  constructor(stream: WriteStream) {
    this.#stream = stream
    stream.on('resize', this.#onResize)
    process.on('SIGTSTP', this.#onSuspend)
  }

  show(text: string): void {
    if (this.#isShown && text === this.#text) return
    // In the background, where the terminal is somebody else's.
    if (!isInForeground()) return
    // A terminal that has no size yet.
    if (!(this.#stream.rows > 1)) return
    this.#text = text
    if (!this.#isShown) this.#reserve()
    this.#isShown = true
    this.#draw()
  }

  /** Gives the row back: nothing of the line is left. */
  hide(): void {
    if (!this.#isShown) return
    this.#isShown = false
    this.#stream.write(`${SAVE}\u001B[r\u001B[${this.#stream.rows};1H${CLEAR_LINE}${RESTORE}`)
  }

  close(): void {
    this.hide()
    this.#stream.off('resize', this.#onResize)
    process.off('SIGTSTP', this.#onSuspend)
  }

  /** As apt does: a row down and up again, in case the cursor stands on the last one; setting the region moves it home. */
  #reserve(): void {
    this.#stream.write(`${DOWN}${SAVE}\u001B[1;${this.#stream.rows - 1}r${RESTORE}${UP}`)
  }

  #draw(): void {
    const { rows, columns } = this.#stream
    const text = this.#text.slice(0, Math.max(0, columns - 1))
    this.#stream.write(`${SAVE}\u001B[${rows};1H${CLEAR_LINE}${DIM}${text}${PLAIN}${RESTORE}`)
  }
}
