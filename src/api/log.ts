import type { FastifyServerOptions } from 'fastify'

export interface LogSettings {
  readonly level: string
  readonly stream: { write(line: string): void }
}

/** What opens something, wherever it stands in a line: a header, an address, the text of an error. */
const SECRETS: readonly (readonly [RegExp, string])[] = [
  [/purser_([a-z]{2})_[\w-]{8,}/g, 'purser_$1_…'],
  [/\b(Bearer|Basic) +[\w.~+/=-]{8,}/gi, '$1 …'],
  [/\bsk-[\w-]{8,}/g, 'sk-…'],
  [/\bwhsec_[\w+/=-]{8,}/g, 'whsec_…'],
  [
    /("(?:authorization|proxy-authorization|(?:x-)?api[-_]?key|cookie|set-cookie|password|secret)\\?":\s*\\?")(?:[^"\\]|\\.)*/gi,
    '$1…',
  ],
  [/([?&](?:key|api[-_]?key|(?:access_)?token|secret|password|signature)=)[^&"\\\s]+/gi, '$1…'],
  [/\b(postgres(?:ql)?:\/\/[^:/@\s"]+):[^@\s"]+@/g, '$1:…@'],
]

/** The logger of a server: no line carries a secret. */
export function loggerOf(log: LogSettings | undefined): NonNullable<FastifyServerOptions['logger']> {
  if (!log) return false
  return { level: log.level, stream: { write: (line: string) => log.stream.write(withoutSecrets(line)) } }
}

export function withoutSecrets(line: string): string {
  return SECRETS.reduce((text, [secret, said]) => text.replace(secret, said), line)
}
