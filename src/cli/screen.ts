import { styleText } from 'node:util'

export type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan'

/** Where lines for people go. */
export interface Screen {
  readonly isTerminal: boolean
  /** How wide text is set, in characters. */
  readonly width: number
  line(text?: string): void
  /** Marks a text up where that is wanted, and leaves it alone elsewhere. */
  paint(style: Style, text: string): string
}

export interface Outputs {
  /** Results. */
  readonly out: Screen
  /** What goes on meanwhile, and complaints. */
  readonly err: Screen
}

/** Wider text is hard to read, also on a wide terminal. */
const MAX_WIDTH = 110
const DEFAULT_WIDTH = 100
const MIN_WIDTH = 40

/** Colours only on a terminal, and only without `NO_COLOR` (https://no-color.org). */
export function standardOutputs(env: NodeJS.ProcessEnv): Outputs {
  return { out: screenOf(process.stdout, env), err: screenOf(process.stderr, env) }
}

function screenOf(stream: NodeJS.WriteStream, env: NodeJS.ProcessEnv): Screen {
  const isTerminal = stream.isTTY === true
  const isPainted = isTerminal && !env['NO_COLOR'] && env['TERM'] !== 'dumb'
  return {
    isTerminal,
    width: Math.max(MIN_WIDTH, Math.min(MAX_WIDTH, (stream.columns || DEFAULT_WIDTH) - 1)),
    line: (text = '') => void stream.write(`${text}\n`),
    paint: (style, text) => (isPainted ? styleText(style, text, { validateStream: false }) : text),
  }
}
